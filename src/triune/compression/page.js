const MOST_DB = 60;

function digits(value, count = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value === "Infinity" ? "exact" : value;
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  return size < -4 || size > 6 ? value.toExponential(count - 1) : value.toFixed(Math.max(0, count - 1 - size));
}

const percent = value => value === null ? "–"
  : `${(100 * value).toFixed(value < 1 && value > 0.9999 ? 4 : 2)}%`;
const size = bytes => bytes >= 1e9 ? `${digits(bytes / 1e9)} GB` : bytes >= 1e6 ? `${digits(bytes / 1e6)} MB`
  : `${digits(bytes / 1e3)} kB`;

function table(heads, rows) {
  const head = make("tr", ...heads.map(([text, kind]) => make("th", {class: kind || ""}, text)));
  const body = rows.map(row => make("tr", ...row.map((cell, index) =>
    make("td", {class: heads[index][1] || ""}, cell))));
  return make("div", {class: "wide"}, make("table", make("thead", head), make("tbody", ...body)));
}

function db(value) {
  if (value === null) return "–";
  const bar = make("i");
  const share = typeof value === "string" ? (value === "Infinity" ? 1 : 0) : value / MOST_DB;
  bar.style.width = `${Math.round(110 * Math.min(1, Math.max(0, share)))}px`;
  return make("div", {class: "db"}, make("span", typeof value === "string" ? digits(value) : value.toFixed(1)), bar);
}

function times(before, after) {
  if (before === null || after === null) return "–";
  return `${digits(before)} → ${digits(after)}`;
}

const main = document.querySelector("main");
const holds = found.agreement >= found.least;
main.append(
  make("h1", `${found.source} → ${found.target}`), make("p", found.form),
  make("div", {class: "totals"},
    total(`${digits(found.source_bytes / Math.max(1, found.target_bytes), 2)} times smaller`,
      `${size(found.source_bytes)} before, ${size(found.target_bytes)} after`),
    total(percent(found.agreement), `${found.text ? "agreement, exp(-divergence)" : "agreement of the worst output"}; ${percent(found.least)} is the least`,
      holds ? "good" : "bad")),
  make("p", `Compared on ${found.samples}${found.made_up
    ? ": give yours with --calibrate, which tell more" : ""}.`));

if (found.text) {
  const text = found.text;
  main.append(make("h2", "Text"), table(
    [["perplexity before", "number"], ["now", "number"], ["same most probable token", "number"],
      ["divergence, nats", "number"], ["tokens", "number"]],
    [[digits(text.perplexity_before, 5), digits(text.perplexity, 5), percent(text.top1),
      digits(text.divergence), text.tokens.toLocaleString("en")]]));
}
if (found.methods.length) {
  main.append(make("h2", "Methods that were tried, on all layers"), table(
    [["method"], ["agreement", "number"], ["figures"], [""]],
    found.methods.map(each => [each.name, percent(each.agreement), each.note, each.kept ? "kept" : ""])));
}

if (found.outputs.length) main.append(make("h2", "Outputs"), table(
  [["output", "name"], ["agreement", "number"], ["measured by"], ["cosine", "number"], ["top-1", "number"],
    ["largest error", "number"], ["mean error", "number"], ["largest value", "number"], ["signal to noise, dB", "number"]],
  found.outputs.map(each => [each.name, percent(each.agreement), each.measure, digits(each.cosine, 5),
    each.top1 === null ? "–" : percent(each.top1), digits(each.largest_error), digits(each.mean_error),
    digits(each.largest), digits(each.sqnr_db)])));

if (found.units.length) {
  const reasons = new Set(found.units.flatMap(({unit, before, after}) =>
    [...new Set([before.unavailable, after.unavailable])].filter(Boolean).map(why => `${unit}: ${why}`)));
  main.append(make("h2", "Speed on this machine"),
    make("p", "Measured, before → after: both take turns, call by call. Other work on the machine makes both slower."),
    table([["unit"], ...(found.text
      ? [["a token of one answer, ms", "number"], ["tokens a second", "number"], ["answers at once", "number"],
        ["joules a token", "number"]]
      : [["latency, ms", "number"], ["samples a second", "number"], ["samples a call", "number"],
        ["joules a sample", "number"], ["agreement on the unit", "number"]])],
    found.units.map(({unit, before, after}) => [unit, times(before.latency_ms, after.latency_ms),
      times(before.rows_per_second, after.rows_per_second), `${after.batch}`,
      before.joules_per_row === null || after.joules_per_row === null ? "unavailable"
        : times(before.joules_per_row, after.joules_per_row), ...(found.text ? [] : [percent(after.agreement)])])),
    make("ul", ...[...reasons].map(each => make("li", each))));
}

const hasOutputs = found.layers.some(each => each.output_db !== null);
const hasNotes = found.layers.some(each => each.note);
const heads = [["layer", "name"], ["operator"], ["form"], ["signal to noise of weights, dB"]];
if (hasOutputs) heads.push([found.text ? "of its products, dB" : "of the worst output, this layer alone, dB"]);
if (hasNotes) heads.push(["note"]);
main.append(make("h2", `Layers (${found.layers.length})`), table(heads, found.layers.map(each => {
  const row = [each.name, each.operator, each.form, db(each.weights_db)];
  if (hasOutputs) row.push(db(each.output_db));
  if (hasNotes) row.push(each.note);
  return row;
})));

if (found.kept.length) {
  main.append(make("h2", `Weights that stayed as they are (${found.kept.length})`), table(
    [["weight", "name"], ["elements", "number"], ["reason"]],
    found.kept.map(each => [each.name, each.elements.toLocaleString("en"), each.reason])));
}
if (found.notes.length) {
  main.append(make("h2", "Notes"), make("ul", ...found.notes.map(each => make("li", each))));
}
