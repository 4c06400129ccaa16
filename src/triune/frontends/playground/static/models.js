// The list of models: states, units, counts, and the rates between two looks at them.

import { byId, duration, errorBox, joules, make, readable, sparkline, unitChip } from "./dom.js";

const SLOTS = 60;

export class Models {
  #seen = new Map();

  update(models) {
    const now = performance.now();
    const isWatched = !byId("part-models").hidden;
    const rows = models.map((model) => {
      const seen = this.#look(model, now);
      return isWatched ? row(model, seen) : null;
    });
    const known = new Set(models.map(keyOf));
    for (const key of this.#seen.keys()) if (!known.has(key)) this.#seen.delete(key);
    this.#models = models;
    if (isWatched) this.#draw(rows);
  }

  #models = [];

  /** Draw what is known when the part comes into sight. */
  shown() {
    this.#draw(this.#models.map((model) => row(model, this.#seen.get(keyOf(model)))));
  }

  failed(error) {
    byId("models-error").replaceChildren(errorBox(error));
  }

  #draw(rows) {
    // Whoever copies a text keeps it.
    const selection = getSelection();
    if (selection && !selection.isCollapsed && byId("part-models").contains(selection.anchorNode)) return;
    byId("models-error").replaceChildren();
    byId("models-rows").replaceChildren(...rows);
    byId("models-totals").replaceChildren(...totals(this.#models, [...this.#seen.values()]));
    byId("models-when").textContent = `as of ${new Date().toLocaleTimeString()}`;
  }

  /** Compare with the last look. A model that was loaded again counts from 0. */
  #look(model, now) {
    const last = this.#seen.get(keyOf(model));
    const counts = { requests: model.requests ?? 0, tokens: model.tokens ?? 0 };
    const seen = { now, counts, requestRate: 0, tokenRate: 0, history: last?.history ?? [] };
    if (last && counts.requests >= last.counts.requests) {
      const seconds = Math.max((now - last.now) / 1e3, 1e-3);
      seen.requestRate = (counts.requests - last.counts.requests) / seconds;
      seen.tokenRate = Math.max(0, counts.tokens - last.counts.tokens) / seconds;
    }
    seen.history = [...seen.history, model.tokens === undefined ? seen.requestRate : seen.tokenRate].slice(-SLOTS);
    this.#seen.set(keyOf(model), seen);
    return seen;
  }
}

const keyOf = (model) => JSON.stringify([model.name, model.version]);

/** The requests that failed. Those that their clients gave up are told, but are no errors. */
function failuresOf(model) {
  const { CANCELED, ...errors } = model.failures ?? {};
  return Object.values(errors).reduce((sum, each) => sum + each, 0);
}

const KINDS = { chat: "chat", text: "text", embeddings: "embeddings", images: "images", speech: "speech" };

function row(model, seen) {
  const isLoaded = model.units !== undefined;
  const cell = (label, className, ...children) => {
    const made = make("td", { className }, ...children);
    made.dataset.label = label;
    return made;
  };
  const failures = failuresOf(model);
  return make(
    "tr",
    {},
    make(
      "th",
      { scope: "row" },
      make("span", { className: "name" }, model.name),
      make("small", {}, tags(model)),
      model.reason ? make("span", { className: "reason" }, model.reason) : null,
    ),
    cell("State", "", state(model)),
    cell("Units", "units", ...(isLoaded ? units(model) : [])),
    cell("Requests", "number", isLoaded ? requests(model) : ""),
    cell("Rate", "number rate", ...(isLoaded ? rate(model, seen) : [])),
    cell("Mean time", "number", model.requests ? duration(model.request_seconds / model.requests) : ""),
    cell("Energy", "number", ...(isLoaded ? joules(energyOf(model), model.requests, "request") : [])),
    cell("Errors", failures ? "number bad" : "number", ...(isLoaded ? errors(model, failures) : [])),
  );
}

function tags(model) {
  const said = (model.kinds ?? []).map((each) => KINDS[each]).filter(Boolean);
  if (model.version !== null) said.unshift(`version ${model.version}`);
  if (model.context_tokens) said.push(`${readable(model.context_tokens)} tokens of context`);
  return said.join(" · ");
}

function state(model) {
  const badge = make("span", { className: "badge" }, model.state ? model.state.toLowerCase() : "not loaded");
  badge.dataset.state = model.state ?? "NONE";
  return badge;
}

function units(model) {
  return model.units.map(({ unit, precision, is_emulated, inferences }) => {
    const text = is_emulated ? `${precision}, emulated` : precision;
    return unitChip(unit, text, `${inferences.toLocaleString("en")} rows computed on ${unit}`);
  });
}

/** The joules of all units together, or why those of one are unavailable. */
function energyOf(model) {
  const all = model.units.map((each) => each.energy);
  const lacking = all.find((each) => each.joules === undefined);
  if (lacking !== undefined || !all.length) return lacking ?? { reason: "no unit computes it" };
  const kinds = [...new Set(all.map((each) => each.kind).filter(Boolean))];
  return { joules: all.reduce((sum, each) => sum + each.joules, 0), kind: kinds.join(", ") };
}

function requests(model) {
  const waiting = model.waiting ? ` (${model.waiting} wait)` : "";
  return `${model.requests.toLocaleString("en")}${waiting}`;
}

function rate(model, seen) {
  const text =
    model.tokens === undefined ? `${readable(seen.requestRate)} /s` : `${readable(seen.tokenRate)} tokens/s`;
  return [sparkline(seen.history, SLOTS), text];
}

function errors(model, failures) {
  const reasons = Object.entries(model.failures).map(([reason, count]) => `${count} ${reason.toLowerCase()}`);
  return [failures.toLocaleString("en"), reasons.length ? make("small", {}, reasons.join(", ")) : null];
}

function totals(models, seen) {
  const sum = (values) => values.reduce((total, each) => total + each, 0);
  const numReady = models.filter((each) => each.state === "READY").length;
  const failures = sum(models.map(failuresOf));
  return [
    ["models ready", `${numReady} of ${models.length}`],
    ["requests/s", readable(sum(seen.map((each) => each.requestRate)))],
    ["tokens/s", readable(sum(seen.map((each) => each.tokenRate)))],
    ["errors", failures.toLocaleString("en")],
  ].map(([label, value]) => make("p", {}, make("b", {}, value), make("span", {}, label)));
}
