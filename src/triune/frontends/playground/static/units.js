// The units of the machine: what each computes, how much of the time, what waits for it, and its power.

import { byId, make, readable, sparkline, unitChip } from "./dom.js";

const SLOTS = 60;

export class Units {
  #seen = new Map();

  /** `machine` is undefined where the server tells nothing of it. */
  update(machine) {
    byId("units-title").hidden = byId("units-table").hidden = machine === undefined;
    if (machine === undefined) return;
    const now = performance.now();
    const rows = machine.units.map((unit) => row(unit, this.#look(unit, now)));
    const selection = getSelection();
    if (selection && !selection.isCollapsed && byId("units-table").contains(selection.anchorNode)) return;
    const { mode, reason } = machine.power;
    byId("units-mode").textContent = `power mode ${mode.replaceAll("_", " ")}${reason ? `: ${reason}` : ""}`;
    byId("units-rows").replaceChildren(...rows);
  }

  /** Compare with the last look. Counts begin again where a model is unloaded. */
  #look(unit, now) {
    const last = this.#seen.get(unit.unit);
    const seen = { now, rows: unit.inferences, busy: unit.busy_seconds, rate: 0, share: 0, history: last?.history ?? [] };
    if (last && seen.rows >= last.rows) {
      const seconds = Math.max((now - last.now) / 1e3, 1e-3);
      seen.rate = (seen.rows - last.rows) / seconds;
      seen.share = Math.max(0, seen.busy - last.busy) / seconds;
    }
    seen.history = [...seen.history, seen.rate].slice(-SLOTS);
    this.#seen.set(unit.unit, seen);
    return seen;
  }
}

function row(unit, seen) {
  const cell = (label, ...children) => {
    const made = make("td", { className: "number" }, ...children);
    made.dataset.label = label;
    return made;
  };
  const chip = unitChip(unit.unit, unit.presence);
  const warnings = [
    unit.lost,
    unit.hot,
    unit.slowed ? `slower than it was, for ${unit.slowed} ${unit.slowed === 1 ? "model" : "models"}` : "",
  ].filter(Boolean);
  const isIdle = unit.presence === "absent";
  return make(
    "tr",
    {},
    make(
      "th",
      { scope: "row" },
      chip,
      make("small", {}, unit.description),
      ...warnings.map((each) => make("span", { className: "reason" }, each)),
    ),
    cell("Models", isIdle ? "" : unit.models.toLocaleString("en")),
    cell("Rows a second", ...(isIdle ? [] : [sparkline(seen.history, SLOTS), readable(seen.rate)])),
    cell("Busy", isIdle ? "" : `${Math.round(100 * seen.share)}%`),
    cell("Queue", isIdle ? "" : unit.waiting.toLocaleString("en")),
    cell("Power", ...power(unit.power)),
  );
}

function power(told) {
  if (told === undefined) return [];
  if (told.watts === undefined) return [make("span", { title: told.reason }, "unavailable")];
  const shared = told.shared_with.length ? `with ${told.shared_with.join(", ")}` : "";
  return [`${told.watts.toFixed(1)} W`, make("small", {}, [told.kind, shared].filter(Boolean).join(", "))];
}
