const number = value => value === null || value === undefined ? "" : value === 0 ? "0" :
  Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

function marks(least, most) {
  // 1, 2 and 5 times powers of ten, for a logarithmic axis.
  const all = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++)
    for (const step of [1, 2, 5]) all.push(step * 10 ** power);
  return all.filter(each => each >= least && each <= most);
}

function chart(tried) {
  const width = 1100, height = 430, left = 70, right = 20, top = 24, bottom = 44;
  const points = tried.flatMap(each => each.levels.map(level => ({ each, level })));
  const p99s = points.map(point => point.level.p99_ms).concat(found.p99_limit_ms ?? []);
  const least = Math.min(...p99s) / 1.15, most = Math.max(...p99s) * 1.15;
  const highest = Math.max(...points.map(point => point.level.requests_per_second)) * 1.08;
  const x = ms => left + (width - left - right) * Math.log(ms / least) / Math.log(most / least);
  const y = rate => height - bottom - (height - top - bottom) * rate / highest;
  const color = each => `var(--${each.is_best ? "best" : each.is_given ? "given" : "other"})`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "throughput against p99" });
  for (const ms of marks(least, most)) svg.append(
    draw("line", { class: "axis", x1: x(ms), x2: x(ms), y1: top, y2: height - bottom }),
    draw("text", { x: x(ms), y: height - bottom + 18, "text-anchor": "middle" }, number(ms)));
  const ten = 10 ** Math.floor(Math.log10(highest));
  const step = highest / ten > 5 ? ten : highest / ten > 2 ? ten / 2 : ten / 5;
  for (let rate = 0; rate <= highest; rate += step) svg.append(
    draw("line", { class: "axis", x1: left, x2: width - right, y1: y(rate), y2: y(rate) }),
    draw("text", { x: left - 8, y: y(rate) + 4, "text-anchor": "end" }, number(rate)));
  svg.append(draw("text", { x: width - right, y: height - 8, "text-anchor": "end" }, "p99, ms (logarithmic)"),
    draw("text", { x: 4, y: 12 }, "requests/s"));
  if (found.p99_limit_ms !== null) svg.append(draw("line",
    { class: "limit", x1: x(found.p99_limit_ms), x2: x(found.p99_limit_ms), y1: top, y2: height - bottom }));
  // No other point has both more requests a second and a lower p99.
  const front = points.filter(one => !points.some(other => other.level.p99_ms <= one.level.p99_ms &&
    other.level.requests_per_second > one.level.requests_per_second)).sort((a, b) => a.level.p99_ms - b.level.p99_ms);
  const line = levels => levels.map(level => `${x(level.p99_ms)},${y(level.requests_per_second)}`).join(" ");
  svg.append(draw("polyline", { class: "front", points: line(front.map(point => point.level)) }));
  for (const each of [...tried].sort((a, b) => (a.is_best || a.is_given) - (b.is_best || b.is_given))) {
    const isNamed = each.is_best || each.is_given;
    if (isNamed) svg.append(draw("polyline", { class: "path", stroke: color(each), points: line(each.levels) }));
    for (const level of each.levels) svg.append(draw("circle",
      { cx: x(level.p99_ms), cy: y(level.requests_per_second), r: isNamed ? 6 : 4, fill: color(each) },
      draw("title", `${each.config}: ${level.callers} at once, ${number(level.requests_per_second)} requests/s, ` +
        `p50 ${number(level.p50_ms)} ms, p99 ${number(level.p99_ms)} ms`)));
  }
  return svg;
}

function key(name, words) {
  return [make("span", {class: "key", style: `background: var(--${name})`}), words];
}

function table(tried) {
  const callers = [...new Set(tried.flatMap(each => each.levels.map(level => level.callers)))];
  const hasJoules = tried.some(each => each.levels.some(level => level.joules !== null));
  const heads = ["config", ...callers.flatMap(each => [`${each} at once: requests/s`, "p50 ms", "p99 ms",
    ...(hasJoules ? ["joules"] : [])])];
  const rows = tried.map(each => {
    const row = make("tr", {class: each.is_best ? "best" : each.is_given ? "given" : ""}, make("td", each.config));
    if (each.failure) {
      row.append(make("td", {class: "why", colspan: heads.length - 1}, `left out: ${each.failure}`));
    } else row.append(...each.levels.flatMap(level => [level.requests_per_second, level.p50_ms, level.p99_ms,
      ...(hasJoules ? [level.joules] : [])].map(value => make("td", number(value)))));
    return row;
  });
  return make("div", {class: "wide"}, make("table", make("tr", ...heads.map(each => make("th", each))), ...rows));
}

const limit = found.p99_limit_ms === null ? "" : `, with a p99 of at most ${number(found.p99_limit_ms)} ms (the red line)`;
const isKept = !found.changes;
document.title = `Tuning of ${found.model}`;
document.querySelector("main").append(
  make("h1", `${found.model}: ${found.verdict}`),
  make("p", `Objective: ${found.objective}${limit}. ${found.num_trials} trials of ${found.tried.length} configs in ` +
    `${number(found.seconds)} s, measured on this machine.`),
  ...(found.unmet ? [make("p", `${found.unmet}.`)] : []),
  make("h2", "Throughput against p99"),
  make("p", ...(isKept ? key("best", "the given config, which is kept") :
    [...key("best", "the best config"), ...key("given", "the given config")]), ...key("other", "others"),
    ". A dotted line joins those that no other beats in both. Point at a mark for its config."),
  chart(found.tried.filter(each => !each.failure)),
  make("h2", "All configs"), table(found.tried),
  make("h2", "What changes in config.pbtxt"), make("pre", found.changes || "nothing"),
  ...(found.notes.length ? [make("h2", "Notes"), make("ul", ...found.notes.map(each => make("li", each)))] : []));
