// Elements made from data. Text goes into text nodes only, so that nothing that a model or a file wrote is markup.

export const byId = (id) => document.getElementById(id);

/** Make an element. `properties` are set on it; `aria` and `role` become attributes; children are elements or texts. */
export function make(tag, { aria = {}, role, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (role) element.setAttribute("role", role);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((each) => each !== null && each !== undefined).map(asNode));
  return element;
}

const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

/** The box in which an error stands, in the server's words. */
export function errorBox(error) {
  return make("p", { className: "error", role: "alert" }, make("strong", {}, "Error "), error.message);
}

/** A line chart of numbers without axes, as wide as its box. */
export function sparkline(values, slots) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${slots - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(svg.namespaceURI, "polyline");
  const top = Math.max(...values, 1e-9);
  const begin = slots - values.length;
  line.setAttribute("points", values.map((each, index) => `${begin + index},${19 - (18 * each) / top}`).join(" "));
  svg.append(line);
  return svg;
}

/** Fill a choice of models; keep what was chosen, if it is still there. Returns whether there is anything to choose. */
export function fillChoice(select, names) {
  const known = [...select.options].map((each) => each.value);
  if (known.length !== names.length || known.some((each, index) => each !== names[index])) {
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.includes(chosen)) select.value = chosen;
  }
  return names.length > 0;
}

/** Call `choose` with the file that the user chooses in `input`, or drops onto `area`. */
export function takeFiles(input, area, choose) {
  // Without this, nothing would happen when the same file is chosen again.
  input.addEventListener("click", () => (input.value = ""));
  input.addEventListener("change", () => input.files[0] && choose(input.files[0]));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0] && !input.disabled) choose(event.dataTransfer.files[0]);
    });
  }
}

/** A number for people: three digits, thousands with a separator. */
export function readable(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** A unit, with what is said of it. */
export function unitChip(unit, text = "", title = "") {
  const chip = make("span", { className: "unit", title }, make("b", {}, unit), text ? ` ${text}` : "");
  chip.dataset.unit = unit;
  return chip;
}

/** The joules of one of `count` rows or requests, or that there is no meter, and why. */
export function joules(energy, count, what) {
  if (energy.joules === undefined) return [make("span", { title: energy.reason }, "no meter here")];
  if (!count) return [];
  const each = energy.joules / count;
  const text = each < 0.1 ? `${readable(each * 1e3)} mJ` : `${readable(each)} J`;
  return [text, make("small", {}, `a ${what}, ${energy.kind}`)];
}

/** A time for people. */
export function duration(seconds) {
  if (seconds >= 1) return `${readable(seconds)} s`;
  return seconds >= 1e-3 ? `${readable(seconds * 1e3)} ms` : `${readable(seconds * 1e6)} µs`;
}
