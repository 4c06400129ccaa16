// A conversation over /v1/chat/completions, streamed.

import { events, post } from "./api.js";
import { byId, duration, errorBox, fillChoice, make, readable } from "./dom.js";

const NUMBERS = ["temperature", "top_p", "top_k", "seed", "max_tokens"];
const NEAR_END_PIXELS = 60;
const IDEAS = ["What is the capital of France?", "Write a haiku about the sea.", "Explain tides to a child."];

export class Chat {
  #messages = [];
  #running = null;
  #log = byId("chat-log");
  #input = byId("chat-input");
  #greeting = make("p", {}, "Looking for models that chat.");
  #ideas = make("div", { className: "ideas", hidden: true }, ...IDEAS.map((text) => this.#idea(text)));
  #empty = make("div", { className: "empty" }, this.#greeting, this.#ideas);
  #isKnown = false;
  #isAtEnd = true;

  constructor() {
    // Wide screens have room for the settings beside the conversation.
    const wide = matchMedia("(min-width: 60rem)");
    const follow = () => (byId("chat-settings").open = wide.matches);
    wide.addEventListener("change", follow);
    follow();
    byId("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    this.#input.addEventListener("input", () => this.#fit());
    byId("part-chat").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#running?.abort();
    });
    this.#log.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#log;
      this.#isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PIXELS;
    });
    byId("chat-stop").addEventListener("click", () => this.#running?.abort());
    byId("chat-new").addEventListener("click", () => {
      this.#restart();
      this.#input.focus();
    });
    byId("chat-model").addEventListener("change", (event) => {
      byId("chat-chosen").textContent = event.target.value;
    });
    this.#restart();
  }

  /** Take the models that chat. */
  update(models) {
    const names = [...new Set(models.filter((each) => each.kinds?.includes("chat")).map((each) => each.name))];
    const hasAny = fillChoice(byId("chat-model"), names);
    this.#isKnown = true;
    const numLoading = models.filter((each) => each.state === "LOADING").length;
    const loading = numLoading ? ` Models that are loading: ${numLoading}.` : "";
    this.#say(
      hasAny
        ? "Ask something. What you write goes to this server, and to nobody else."
        : `No model that is ready can chat: it needs a checkpoint with a chat template.${loading}`,
    );
    this.#ideas.hidden = byId("chat-send").disabled = !hasAny;
    byId("chat-chosen").textContent = byId("chat-model").value;
  }

  failed(error) {
    if (!this.#isKnown) this.#say(error.message);
  }

  shown() {
    this.#fit();
  }

  #say(text) {
    if (this.#greeting.textContent !== text) this.#greeting.textContent = text;
  }

  #idea(text) {
    const button = make("button", { type: "button", className: "quiet" }, text);
    button.addEventListener("click", () => {
      this.#input.value = text;
      this.#input.focus();
      this.#send();
    });
    return button;
  }

  #restart() {
    this.#running?.abort();
    this.#messages = [];
    this.#log.replaceChildren(this.#empty);
    this.#input.value = "";
    this.#fit();
  }

  #fit() {
    this.#input.style.height = "auto";
    // While the part is hidden, nothing has a height.
    const height = this.#input.scrollHeight;
    if (height) this.#input.style.height = `${height + 2}px`;
  }

  #send() {
    const text = this.#input.value.trim();
    if (!text || this.#running || byId("chat-send").disabled) return;
    for (const name of NUMBERS) {
      const field = byId(`chat-${name}`);
      if (!field.validity.badInput) continue;
      byId("chat-settings").open = true;
      field.reportValidity();
      return;
    }
    this.#empty.remove();
    this.#input.value = "";
    this.#fit();
    this.#messages.push({ role: "user", content: text });
    this.#log.append(bubble("user", "You", text));
    this.#answer();
  }

  /** Ask for the answer to the conversation so far, and show it as it comes. */
  async #answer() {
    for (const each of this.#log.querySelectorAll(".again")) each.remove();
    const messages = this.#messages;
    const body = this.#body(messages);
    const item = bubble("assistant", body.model, "");
    const meter = new Meter();
    const writer = new Writer(item, () => this.#toEnd(false));
    item.classList.add("waiting");
    this.#log.append(item);
    this.#toEnd(true);
    this.#begin();
    const running = this.#running;
    let answer = "";
    try {
      const response = await post("/v1/chat/completions", body, { signal: running.signal });
      for await (const event of events(response)) {
        meter.add(event);
        const delta = event.choices?.[0]?.delta;
        if (delta?.reasoning_content) thoughts(item).appendData(delta.reasoning_content);
        const added = delta?.content;
        if (!added) continue;
        answer += added;
        writer.add(added);
      }
    } catch (error) {
      if (error.name === "AbortError") meter.isStopped = true;
      else item.append(errorBox(error));
    }
    writer.end();
    if (!answer && !item.querySelector(".error")) item.querySelector(".text").classList.add("nothing");
    item.append(make("p", { className: "meta" }, meter.text()));
    if (this.#messages === messages) {
      if (answer) messages.push({ role: "assistant", content: answer });
      item.append(this.#again(item, answer !== ""));
    }
    this.#end(running, meter.isStopped);
    this.#toEnd(false);
  }

  #body(messages) {
    const system = byId("chat-system").value.trim();
    const body = {
      model: byId("chat-model").value,
      messages: system ? [{ role: "system", content: system }, ...messages] : messages,
      stream: true,
      stream_options: { include_usage: true },
      triune: true,
    };
    for (const name of NUMBERS) {
      const value = byId(`chat-${name}`).value;
      if (value !== "") body[name] = Number(value);
    }
    return body;
  }

  #again(item, hasAnswer) {
    const button = make("button", { type: "button", className: "quiet again" }, "Regenerate");
    button.addEventListener("click", () => {
      if (this.#running) return;
      if (hasAnswer) this.#messages.pop();
      item.remove();
      this.#input.focus();
      this.#answer();
    });
    return button;
  }

  #begin() {
    this.#running = new AbortController();
    this.#log.setAttribute("aria-busy", "true");
    byId("chat-send").hidden = true;
    byId("chat-stop").hidden = false;
    byId("chat-status").textContent = "The model answers.";
  }

  #end(running, isStopped) {
    if (this.#running !== running) return;
    const hadFocus = document.activeElement === byId("chat-stop");
    this.#running = null;
    this.#log.setAttribute("aria-busy", "false");
    byId("chat-send").hidden = false;
    byId("chat-stop").hidden = true;
    byId("chat-status").textContent = isStopped ? "Stopped." : "The answer is complete.";
    if (hadFocus) this.#input.focus();
  }

  /** Scroll to the end, unless the user reads further up. */
  #toEnd(isForced) {
    if (isForced) this.#isAtEnd = true;
    if (this.#isAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }
}

/** Writes an answer as it comes, at most once a frame: the browser lays out a long text anew each time. */
class Writer {
  #item;
  #text;
  #written;
  #waiting = "";
  #frame = 0;

  constructor(item, written) {
    this.#item = item;
    this.#text = item.querySelector(".text").firstChild;
    this.#written = written;
  }

  add(text) {
    this.#waiting += text;
    this.#frame ||= requestAnimationFrame(() => this.#write());
  }

  #write() {
    this.#frame = 0;
    this.#item.classList.remove("waiting");
    this.#text.appendData(this.#waiting);
    this.#waiting = "";
    this.#written();
  }

  end() {
    cancelAnimationFrame(this.#frame);
    this.#write();
  }
}

function bubble(role, name, text) {
  return make(
    "article",
    { className: `bubble ${role}` },
    make("h2", {}, name),
    make("div", { className: "text", dir: "auto" }, document.createTextNode(text)),
  );
}

/** The text of the model's reasoning, folded, above its answer. */
function thoughts(item) {
  if (!item.querySelector(".thoughts")) {
    const text = make("p", { dir: "auto" }, document.createTextNode(""));
    item.querySelector(".text").before(make("details", { className: "thoughts" }, make("summary", {}, "Reasoning"), text));
  }
  return item.querySelector(".thoughts p").firstChild;
}

/** Measures an answer as its reader meets it, and reads what the server says of it. */
class Meter {
  isStopped = false;
  #started = performance.now();
  #first = 0;
  #last = 0;
  #numEvents = 0;
  #usage = null;
  #report = null;
  #reason = "";

  add(event) {
    this.#usage = event.usage ?? this.#usage;
    this.#report = event.triune ?? this.#report;
    const choice = event.choices?.[0];
    this.#reason = choice?.finish_reason ?? this.#reason;
    if (!choice?.delta?.content && !choice?.delta?.reasoning_content) return;
    this.#last = performance.now();
    this.#first ||= this.#last;
    this.#numEvents += 1;
  }

  text() {
    const said = this.isStopped ? ["stopped"] : [];
    if (this.#reason === "length") said.push("cut at the limit of tokens");
    const count = this.#usage?.completion_tokens;
    if (count !== undefined) said.push(count === 1 ? "1 token" : `${count} tokens`);
    // What came at once has no rate. Without the server's count, each event is about a token.
    const seconds = (this.#last - this.#first) / 1e3;
    const rate = ((count ?? this.#numEvents) - 1) / seconds;
    if (seconds > 0.005 && rate > 0) said.push(`${count === undefined ? "about " : ""}${readable(rate)} tokens/s`);
    if (this.#first) said.push(`first token after ${duration((this.#first - this.#started) / 1e3)}`);
    const cached = this.#usage?.prompt_tokens_details?.cached_tokens;
    if (cached) said.push(`${cached} of ${this.#usage.prompt_tokens} prompt tokens cached`);
    if (this.#report) said.push(`${this.#report.unit} (${this.#report.runtime}, ${this.#report.precision})`);
    return said.join(" · ");
  }
}
