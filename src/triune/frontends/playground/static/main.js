// The parts of the page, which one is shown, and the list of models that all of them need.

import { askWith, hasKey, request, useKey } from "./api.js";
import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { Images } from "./images.js";
import { Models } from "./models.js";
import { Places } from "./places.js";
import { Similarity } from "./similarity.js";
import { Speech } from "./speech.js";
import { Units } from "./units.js";

const REFRESH_MS = 2000;

const parts = {
  chat: new Chat(),
  similarity: new Similarity(),
  images: new Images(),
  speech: new Speech(),
  models: new Models(),
};
const units = new Units();
const places = new Places();
let timer = 0;

function shown() {
  const name = location.hash.slice(1);
  return name in parts ? name : "chat";
}

function show() {
  const current = shown();
  for (const name of Object.keys(parts)) byId(`part-${name}`).hidden = name !== current;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = document.querySelector(`nav a[href="#${current}"]`).textContent;
  document.title = `${title} · Triune`;
  parts[current].shown?.();
  if (current === "models") places.shown();
}

/** Ask for the models now, and again every few seconds while somebody can see the page. */
async function refresh(isQuiet = true) {
  clearTimeout(timer);
  try {
    const overview = await (await request("/playground/models", {}, { isQuiet })).json();
    tellServer("up", `${overview.server.name} ${overview.server.version}`);
    for (const part of Object.values(parts)) part.update(overview.models);
    units.update(overview.machine);
    places.update(overview.models);
  } catch (error) {
    tellServer("down", error.status === 0 ? "not reachable" : error.status === 401 ? "key needed" : "refused");
    if (error.status === 401) byId("key-open").hidden = false;
    for (const part of Object.values(parts)) part.failed?.(error);
  }
  if (!document.hidden) timer = setTimeout(refresh, REFRESH_MS);
}

function tellServer(state, text) {
  byId("server-dot").dataset.state = state;
  if (byId("server-text").textContent !== text) byId("server-text").textContent = text;
}

/** Ask the user for a key. Resolves to whether one was given. Several requests that need one share the question. */
let question = null;
function askForKey(why) {
  question ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    byId("key-open").hidden = false;
    byId("key-why").textContent = hasKey() ? why : "";
    byId("key-input").value = "";
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "use" ? byId("key-input").value.trim() : "";
        byId("key-input").value = "";
        question = null;
        if (given) useKey(given);
        resolve(given !== "");
      },
      { once: true },
    );
    dialog.showModal();
  });
  return question;
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("key-dialog").close("use");
});
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close(""));
byId("key-open").addEventListener("click", async () => {
  if (await askForKey("")) refresh(false);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
askWith(askForKey);
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
show();
refresh(false);
