// Cosines between the embeddings of texts, over /v1/embeddings.

import { post } from "./api.js";
import { byId, duration, errorBox, fillChoice, make } from "./dom.js";

const MAX_TEXTS = 24;

export class Similarity {
  #result = byId("similarity-result");

  constructor() {
    byId("similarity-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#compare();
    });
  }

  update(models) {
    const names = [...new Set(models.filter((each) => each.kinds?.includes("embeddings")).map((each) => each.name))];
    const hasAny = fillChoice(byId("similarity-model"), names);
    byId("similarity-go").disabled = !hasAny;
    const isEmpty = !this.#result.hasChildNodes();
    if (!hasAny && isEmpty) this.#result.append(make("p", { className: "empty" }, "No model that is ready embeds texts."));
    if (hasAny) this.#result.querySelector(".empty")?.remove();
  }

  async #compare() {
    const texts = byId("similarity-texts").value.split("\n").map((each) => each.trim()).filter(Boolean);
    const button = byId("similarity-go");
    button.disabled = true;
    this.#result.setAttribute("aria-busy", "true");
    try {
      if (texts.length < 2) throw new Error("two texts at least are needed; write one a line");
      if (texts.length > MAX_TEXTS) throw new Error(`there are ${texts.length} texts; a table holds ${MAX_TEXTS}`);
      const started = performance.now();
      const response = await post("/v1/embeddings", {
        model: byId("similarity-model").value,
        input: texts,
        triune: true,
      });
      const answer = await response.json();
      const seconds = (performance.now() - started) / 1e3;
      const vectors = answer.data.map((each) => normalized(each.embedding));
      this.#result.replaceChildren(table(texts, vectors), summary(answer, vectors, seconds));
    } catch (error) {
      this.#result.replaceChildren(errorBox(error));
    } finally {
      button.disabled = false;
      this.#result.setAttribute("aria-busy", "false");
    }
  }
}

function normalized(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((each) => each / length);
}

const cosine = (one, other) => one.reduce((sum, each, index) => sum + each * other[index], 0);

function table(texts, vectors) {
  const head = make("tr", {}, make("th", { scope: "col" }, "Text"));
  texts.forEach((text, index) => head.append(make("th", { scope: "col", title: text }, index + 1)));
  const body = texts.map((text, row) => {
    const line = make("tr", {}, make("th", { scope: "row", title: text }, make("b", {}, row + 1), " ", text));
    vectors.forEach((other, column) => {
      const value = cosine(vectors[row], other);
      const cell = make("td", { className: row === column ? "same" : "" }, value.toFixed(2));
      cell.style.setProperty("--heat", `${Math.round(100 * Math.min(1, Math.max(0, value)))}%`);
      line.append(cell);
    });
    return line;
  });
  const whole = make("table", { className: "cosines" }, make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { className: "scroll card", tabIndex: 0, role: "region", aria: { label: "Cosines" } }, whole);
}

function summary(answer, vectors, seconds) {
  const said = [`${vectors[0].length} dimensions`, `${answer.usage.prompt_tokens} tokens`, duration(seconds)];
  if (answer.triune) said.push(`${answer.triune.unit} (${answer.triune.runtime}, ${answer.triune.precision})`);
  return make("p", { className: "meta" }, said.join(" · "));
}
