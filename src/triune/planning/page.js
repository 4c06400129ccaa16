const ROW = 22, LEFT = 120, WIDTH = 1000;
const color = unit => `var(--${unit})`;

function number(value, unit) {
  if (value === null) return "impossible";
  const digits = value === 0 ? 0 : Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return `${value.toFixed(digits)} ${unit}`;
}

const joules = value => value === null ? "unavailable" : value < 0.1 ? number(1e3 * value, "mJ") : number(value, "J");

function error(score) {
  if (!score) return "predicted; no measurement was held out to tell how well";
  return `predicted; of ${score.num_held_out} measurements of ${score.models} held out, half were within ` +
    `${(100 * score.median).toFixed(0)}%, nine of ten within ${(100 * score.nine_of_ten).toFixed(0)}%`;
}

const measured = time => `measured here: ${time.source}, ${time.num_calls.toLocaleString("en")} calls`;

/** Whether the times ("ms") or energies ("joules") of a plan are measured or predicted, and how well. */
function kind(plan, what) {
  if (plan.measured?.[what]) return measured(plan.measured);
  const units = plan.whole_model_on_one_unit.filter(each => each.measured?.[what]).map(each => each.unit);
  return units.length ? `predicted, corrected by what was measured here of the whole model on ${units.join(", ")}`
    : error(plan[`${what}_error`]);
}

function figure(value, words, source) {
  const box = total(value, words);
  box.append(make("p", source));
  return box;
}

/** The operations of a segment, one a row: the bar is its time, and lines lead to what reads its result. */
function graph(segment, show) {
  const rows = new Map(segment.ops.map((op, index) => [op.name, index]));
  const longest = Math.max(...segment.ops.map(op => op.ms), 1e-12);
  const height = ROW * segment.ops.length;
  const picture = draw("svg", {width: WIDTH, height, viewBox: `0 0 ${WIDTH} ${height}`});
  segment.ops.forEach((op, index) => {
    const y = ROW * index;
    const row = draw("g", {class: "op", tabindex: 0},
      draw("rect", {class: "row", x: LEFT - 8, y, width: WIDTH - LEFT + 8, height: ROW, fill: "transparent"}),
      draw("circle", {cx: LEFT, cy: y + ROW / 2, r: 4, fill: color(segment.unit)}),
      draw("text", {class: "kind", x: LEFT + 14, y: y + 15}, op.op),
      draw("text", {x: LEFT + 180, y: y + 15}, op.name.length > 62 ? "…" + op.name.slice(-61) : op.name),
      draw("rect", {x: LEFT + 640, y: y + 6, width: Math.max(1, 150 * op.ms / longest), height: 10, rx: 2,
        fill: color(segment.unit)}),
      draw("text", {class: "kind", x: LEFT + 800, y: y + 15}, op.ms ? number(1e3 * op.ms, "µs") : ""));
    row.addEventListener("click", () => show(op));
    row.addEventListener("keydown", event => { if (event.key === "Enter") show(op); });
    picture.append(row);
    for (const name of op.inputs) {
      const from = rows.get(name);
      if (from === undefined) continue;
      const top = ROW * from + ROW / 2, bottom = y + ROW / 2, far = index - from;
      const bend = far === 1 ? 0 : Math.min(LEFT - 16, 10 + 9 * Math.sqrt(far));
      picture.append(draw("path", {class: "edge",
        d: `M ${LEFT} ${top} C ${LEFT - bend} ${top}, ${LEFT - bend} ${bottom}, ${LEFT} ${bottom}`}));
    }
  });
  return picture;
}

function described(op) {
  const lines = [`${op.op} ${op.name}: ${number(1e3 * op.ms, "µs")}, ${joules(op.joules)} ` +
    `(predicted; bound by ${op.bound})`];
  for (const [unit, ms] of Object.entries(op.unit_ms)) lines.push(`${unit}: ${number(1e3 * ms, "µs")}`);
  for (const [unit, each] of Object.entries(op.refused)) {
    lines.push(`${unit} refuses it: ${each.reason}. ${each.remedy}\n    rule "${each.rule}", ${each.source}`);
  }
  if (op.inputs.length) lines.push(`reads ${op.inputs.join(", ")}`);
  return lines.join("\n");
}

function box(segment, index) {
  const first = segment.ops[0], last = segment.ops[segment.ops.length - 1];
  const words = segment.ops.length === 1 ? `${first.op} ${first.name}`
    : `${segment.ops.length} operations, ${first.op} ${first.name} to ${last.op} ${last.name}`;
  const opener = make("button", {"aria-expanded": "false"},
    make("span", {class: "number soft"}, `${index + 1}`), make("b", segment.unit), make("span", words),
    make("span", {class: "number"}, number(segment.ms, "ms")), make("span", {class: "number"}, joules(segment.joules)));
  const whole = make("div", {class: "segment", style: `border-left-color: ${color(segment.unit)}`}, opener,
    make("div", {class: "why soft"}, segment.why));
  let inner = null;
  opener.addEventListener("click", () => {
    if (inner === null) {
      const detail = make("div", {class: "detail soft"}, "Choose an operation.");
      inner = make("div", make("div", {class: "ops"}, graph(segment, op => { detail.textContent = described(op); })),
        detail);
      whole.append(inner);
    } else {
      inner.hidden = !inner.hidden;
    }
    opener.setAttribute("aria-expanded", String(!inner.hidden));
  });
  return whole;
}

function page(plan) {
  const units = [...new Set(plan.segments.map(segment => segment.unit))];
  const boxes = plan.segments.map(box);
  const slices = plan.segments.map((segment, index) => {
    const slice = make("button", {title: `${index + 1}: ${segment.unit}, ${number(segment.ms, "ms")}`,
      "aria-label": `segment ${index + 1}`, style: `flex: ${1e3 * segment.ms / plan.ms} 0 0; background: ${color(segment.unit)}`});
    slice.addEventListener("click", () => {
      boxes[index].scrollIntoView({block: "center"});
      boxes[index].querySelector("button").click();
    });
    return slice;
  });
  const totals = make("div", {class: "totals"}, figure(number(plan.ms, "ms"), "one call", kind(plan, "ms")),
    figure(joules(plan.joules), "one call", kind(plan, "joules")));
  if (plan.for === "throughput") {
    totals.append(figure(`${(1e3 / plan.period_ms).toPrecision(3)} a second`, "in a pipeline", error(plan.ms_error)),
      figure(`${plan.apart_per_second.toPrecision(3)} a second`, "whole calls side by side, one on each unit",
        error(plan.ms_error)));
  }
  const wholes = make("table", make("tr", ...["whole model on", "time", "", "energy", "", ""]
    .map(text => make("th", text))));
  for (const each of plan.whole_model_on_one_unit) {
    const words = each.num_refused ? `it refuses ${each.num_refused} operations`
      : each.is_within_error ? "the error does not tell it from this plan" : "";
    const source = each.measured ? `${measured(each.measured)}; predicted ${number(each.predicted_ms, "ms")}`
      : each.ms === null ? "" : "predicted";
    wholes.append(make("tr", ...[each.unit, number(each.ms, "ms"), source, joules(each.joules),
      each.joules === null ? "" : each.measured?.joules ? "measured here" : "predicted", words]
      .map(text => make("td", text))));
  }
  const parts = [
    make("h1", plan.title), make("p", `on ${plan.chip}, for ${plan.for}: predicted`
      + (plan.whole_model_on_one_unit.some(each => each.measured) ? "" : ", not measured")), totals,
    make("div", {class: "legend"}, ...units.map(unit => make("span",
      make("span", {class: "chip", style: `background: ${color(unit)}`}), unit))),
    make("h2", "Time"), make("div", {class: "time"}, ...slices),
    make("h2", plan.segments.length === 1 ? "One segment: a click opens it"
      : `${plan.segments.length} segments: a click opens one`), ...boxes,
    make("h2", "On one unit alone"), wholes,
  ];
  if (plan.core_ml_cpu_and_ne) {
    const core = plan.core_ml_cpu_and_ne;
    parts.push(make("p", `Core ML, asked for CPU and Neural Engine, would put ${core.num_on_ane} of ` +
      `${core.units.length} operations on the Neural Engine; runs of operations on one unit: ${core.num_segments} ` +
      "(predicted from its published estimates)."));
  }
  if (plan.faster.length) {
    parts.push(make("h2", "What would make it faster"), make("ul", ...plan.faster.map(each => make("li",
      each.what + (each.saves_ms === null ? "" : ` (saves ${number(each.saves_ms, "ms")}, predicted)`)))));
  }
  if (plan.notes.length) {
    parts.push(make("h2", "Notes"), make("ul", ...plan.notes.map(note => make("li", note))));
  }
  return make("section", ...parts);
}

document.title = `Plan of ${found.plans[0].title} on ${found.plans[0].chip}`;
/** Plans of one model for several goals, side by side. */
function comparison(plans) {
  const head = ["for", "segments on", "time of a call", "calls a second", "energy of a call", ""];
  const table = make("table", make("tr", ...head.map(text => make("th", text))));
  for (const plan of plans) {
    const units = plan.segments.map(each => each.unit);
    const shown = units.slice(0, 6).join(", ") + (units.length > 6 ? ` and ${units.length - 6} more` : "");
    const cells = [plan.for, shown, number(plan.ms, "ms"), (1e3 / plan.period_ms).toPrecision(3), joules(plan.joules),
      plan.measured ? "time measured here" : "predicted"];
    table.append(make("tr", ...cells.map(text => make("td", text))));
  }
  return make("section", {class: "comparison"}, make("h1", `${plans[0].title} on ${plans[0].chip}`), table);
}

const titles = [...new Set(found.plans.map(each => each.title))];
const compared = titles.map(title => found.plans.filter(each => each.title === title)).filter(each => each.length > 1);
document.querySelector("main").append(...compared.map(comparison), ...found.plans.map(page));
