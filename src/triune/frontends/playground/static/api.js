// The server, with the API key if it asks for one, and errors with its own words.

let key = "";
let asking = null;

/** Use a key for all requests from now on. It lives in this module only. */
export function useKey(value) {
  key = value;
}

export const hasKey = () => key !== "";

/** Set what asks the user for a key: a function of the server's words that resolves to whether there is a new key. */
export function askWith(ask) {
  asking = ask;
}

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Send a request. Throws a ServerError unless it succeeds. With a 401 the user is asked for a key, once. */
export async function request(path, options = {}, { isQuiet = false } = {}) {
  let response = await send(path, options);
  if (response.status === 401 && asking && !isQuiet) {
    if (await asking(await messageOf(response.clone()))) response = await send(path, options);
  }
  if (!response.ok) throw new ServerError(await messageOf(response), response.status);
  return response;
}

async function send(path, options) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  try {
    return await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("the server cannot be reached: is it still running?", 0);
  }
}

/** Send JSON. */
export function post(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), ...options });
}

async function messageOf(response) {
  const text = await response.text();
  try {
    return messageIn(JSON.parse(text).error) || text;
  } catch {
    return text || `the server answered with status ${response.status}`;
  }
}

const messageIn = (error) => (typeof error === "string" ? error : (error?.message ?? ""));

/** Iterate over the documents of a stream of events, until `[DONE]`. Throws a ServerError for an event of an error. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ServerError("the answer broke off: the server closed the connection", 0);
      const lines = (left + value).split("\n");
      left = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const document = JSON.parse(data);
        if (document.error) throw new ServerError(messageIn(document.error), 200);
        yield document;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
