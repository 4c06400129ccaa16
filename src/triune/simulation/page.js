function bar(part, width, color) {
  return make("span", {class: "bar", style: `width: ${Math.max(1, width * part)}px; background: var(--${color})`});
}

const number = value => value === 0 ? "0" : Number(value.toPrecision(4)).toLocaleString("en");

function table(heads, rows) {
  return make("table", make("tr", ...heads.map(each => make("th", each))),
    ...rows.map(row => make("tr", ...row.map(each => make("td", ...[each].flat())))));
}

const units = [...new Set(found.results.flatMap(each => Object.keys(each.utilisation)))];
const most = Math.max(found.capacity_rows, ...found.results.map(each => each.total.rows_per_second));
const own = found.results[0];
document.querySelector("main").append(
  make("h1", `${found.num_requests} requests in ${number(found.trace_seconds)} s on ${found.chip}: simulated, not measured`),
  make("p", `No schedule can compute more than ${number(found.capacity_rows)} rows a second of this mix, nor answer what ` +
    `Triune answered in less than ${number(own.least_seconds)} s (it took ${number(own.seconds)} s), with less than ` +
    `${number(own.least_joules)} J or a p99 below ${number(own.least_p99_ms)} ms.`),
  make("h2", "Schedulers (simulated)"),
  table(["scheduler", "rows/s", "p50 ms", "p99 ms", "refused", "joules", "of best", ...units.map(each => `${each} busy`)],
    found.results.map(each => [each.name,
      [bar(each.total.rows_per_second / most, 120, each === own ? "ane" : "cpu"), number(each.total.rows_per_second)],
      number(each.total.p50_ms), number(each.total.p99_ms), number(each.num_refused), number(each.total.joules),
      `${(100 * each.of_optimum).toFixed(1)}%`,
      ...units.map(unit => [bar(each.utilisation[unit] ?? 0, 40, unit), `${(100 * (each.utilisation[unit] ?? 0)).toFixed(0)}%`])])),
  make("h2", "By model and unit, as Triune schedules them (simulated)"),
  table(["model", "unit", "requests", "rows/s", "rows/batch", "p50 ms", "p99 ms", "queue ms", "joules"],
    own.parts.map(each => [each.model, [bar(1, 10, each.unit), each.unit], number(each.num_requests),
      number(each.rows_per_second), number(each.rows_per_batch), number(each.p50_ms), number(each.p99_ms),
      number(each.queue_ms), number(each.joules)])),
  make("h2", "What was assumed"), make("ul", ...found.notes.map(each => make("li", each))));
