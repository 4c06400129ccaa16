// Where each loaded model computes: what was requested, planned and observed, its parts of the work, and its joules.

import { byId, joules, make, readable, unitChip } from "./dom.js";

export class Places {
  #seen = new Map();
  #models = [];

  update(models) {
    this.#models = models.filter((model) => model.placement !== undefined);
    const now = performance.now();
    const looks = this.#models.map((model) => [model, this.#look(model, now)]);
    this.#seen = new Map(looks.map(([model, look]) => [keyOf(model), look]));
    byId("places-title").hidden = byId("places-table").hidden = !this.#models.length;
    const selection = getSelection();
    if (selection && !selection.isCollapsed && byId("places-table").contains(selection.anchorNode)) return;
    if (!byId("part-models").hidden) this.shown();
  }

  shown() {
    byId("places-rows").replaceChildren(...this.#models.flatMap((model) => rows(model, this.#seen.get(keyOf(model)))));
  }

  /** The part of the time that each unit or segment was busy since the last look. A model that was loaded again begins
   * anew. */
  #look(model, now) {
    const last = this.#seen.get(keyOf(model));
    const busy = model.placement.segments.map((segment) => busyOf(model, segment));
    const isSame = last && last.busy.length === busy.length && busy.every((each, index) => each >= last.busy[index]);
    const seconds = isSame ? Math.max((now - last.now) / 1e3, 1e-3) : Infinity;
    return { now, busy, shares: busy.map((each, index) => (isSame ? (each - last.busy[index]) / seconds : 0)) };
  }
}

const keyOf = (model) => JSON.stringify([model.name, model.version]);
const unitOf = (model, segment) => model.units.find((each) => each.unit === segment.unit);
const busyOf = (model, segment) => segment.busy_seconds ?? unitOf(model, segment)?.busy_seconds ?? 0;

function rows(model, look) {
  const { placement } = model;
  const total = placement.segments.reduce((sum, each) => sum + workOf(model, each), 0);
  return placement.segments.map((segment, index) => {
    const cell = (label, className, ...children) => {
      const made = make("td", { className }, ...children);
      made.dataset.label = label;
      return made;
    };
    const unit = unitOf(model, segment);
    const share = total ? `${Math.round((100 * workOf(model, segment)) / total)}%` : "";
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, ...title(model, segment, index)),
      cell("Requested", "", segment.requested || placement.requested || "any"),
      cell("Planned", "", ...planned(segment)),
      cell("Observed", "units", ...observed(segment)),
      cell("Share", "number", share),
      cell("Busy", "number", `${Math.round(100 * look.shares[index])}%`),
      cell("Energy", "number", ...(unit ? joules(unit.energy, unit.inferences, "row") : [])),
    );
  });
}

/** What a segment did: of a model that is cut, its time; else the rows that its unit computed. */
function workOf(model, segment) {
  return model.placement.is_cut ? busyOf(model, segment) : (unitOf(model, segment)?.inferences ?? 0);
}

function title(model, segment, index) {
  const name = make("span", { className: "name" }, model.name);
  const part = model.placement.is_cut ? `segment ${index + 1}, ${readable(segment.operations)} operations` : "";
  const notes = [...(index ? [] : model.placement.notes), ...segment.notes];
  return [
    name,
    make("small", {}, [`version ${model.version}`, part].filter(Boolean).join(" · ")),
    notes.length ? make("small", { title: notes.join("\n") }, notes[0]) : null,
  ];
}

function planned(segment) {
  if (!segment.planned) return [make("small", {}, "no plan")];
  const time = segment.predicted_ms === null ? null : make("small", {}, `${readable(segment.predicted_ms)} ms predicted`);
  return [unitChip(segment.planned), time];
}

function observed(segment) {
  const how = [segment.precision, segment.is_emulated ? "emulated" : "", segment.runtime].filter(Boolean).join(", ");
  const said = [
    segment.report ? `${segment.runtime} says ${segment.report}` : "",
    segment.sample_ms === null ? "" : `${readable(segment.sample_ms)} ms at the load`,
  ].filter(Boolean);
  return [unitChip(segment.unit, how), said.length ? make("small", {}, said.join("; ")) : null];
}
