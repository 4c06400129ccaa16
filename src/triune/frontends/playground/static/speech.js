// The words of a recording, over /v1/audio/transcriptions. The part is shown if a model offers it.

import { request } from "./api.js";
import { byId, duration, errorBox, fillChoice, make, takeFiles } from "./dom.js";

export class Speech {
  #file = null;
  #running = null;
  #result = byId("speech-result");
  #audio = byId("speech-audio");

  constructor() {
    takeFiles(byId("speech-file"), byId("speech-drop"), (file) => this.#choose(file));
    byId("speech-model").addEventListener("change", () => this.#transcribe());
    byId("speech-stop").addEventListener("click", () => this.#running?.abort());
    byId("speech-form").addEventListener("submit", (event) => event.preventDefault());
  }

  update(models) {
    const names = [...new Set(models.filter((each) => each.kinds?.includes("speech")).map((each) => each.name))];
    const hasAny = fillChoice(byId("speech-model"), names);
    byId("speech-link").hidden = !hasAny;
    byId("speech-file").disabled = !hasAny;
  }

  #choose(file) {
    this.#file = file;
    URL.revokeObjectURL(this.#audio.src);
    this.#audio.src = URL.createObjectURL(file);
    this.#audio.hidden = false;
    this.#transcribe();
  }

  async #transcribe() {
    if (!this.#file) return;
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    byId("speech-stop").hidden = false;
    this.#result.setAttribute("aria-busy", "true");
    this.#result.replaceChildren(make("p", { className: "waiting" }, make("span", { className: "text" }, "Listening ")));
    let shown;
    try {
      const started = performance.now();
      const answer = await transcribe(byId("speech-model").value, this.#file, running.signal);
      shown = this.#transcript(answer, (performance.now() - started) / 1e3);
    } catch (error) {
      shown = error.name === "AbortError" ? [make("p", { className: "meta" }, "stopped")] : [errorBox(error)];
    }
    // Another recording or model may have been chosen meanwhile.
    if (this.#running !== running) return;
    this.#running = null;
    byId("speech-stop").hidden = true;
    this.#result.replaceChildren(...shown);
    this.#result.setAttribute("aria-busy", "false");
  }

  #transcript(answer, seconds) {
    const items = answer.segments.map(({ start, text }) => {
      const from = make("button", { type: "button", className: "quiet", aria: { label: `Play from ${clock(start)}` } });
      from.textContent = clock(start);
      from.addEventListener("click", () => {
        this.#audio.currentTime = start;
        this.#audio.play().catch(() => {});
      });
      return make("li", {}, from, make("span", { dir: "auto" }, text.trim()));
    });
    const said = [`${duration(answer.duration)} of sound in ${duration(seconds)}`];
    if (seconds > 0) said.push(`${(answer.duration / seconds).toFixed(1)} times as fast as it was spoken`);
    if (answer.language) said.push(`language ${answer.language}`);
    if (answer.triune) said.push(`${answer.triune.unit} (${answer.triune.runtime}, ${answer.triune.precision})`);
    const words = items.length
      ? make("ol", { className: "segments" }, ...items)
      : make("p", { className: "empty" }, "There is no speech in it.");
    return [words, make("p", { className: "meta" }, said.join(" \u00b7 "))];
  }
}

async function transcribe(model, file, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ model, response_format: "verbose_json", triune: "true" }))
    form.append(name, value);
  form.append("file", file);
  return (await request("/v1/audio/transcriptions", { method: "POST", body: form, signal })).json();
}

/** Minutes and seconds. */
function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
