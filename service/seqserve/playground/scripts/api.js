// Calls of the server: those of gRPC, as JSON over HTTP.

/** The token lives here and nowhere else: it is gone with the page. */
let bearerToken = "";

function useToken(token) {
  bearerToken = token;
}

/** What the server has refused, in its own words. */
class CallError extends Error {
  constructor({ status, message, details = [] }, requestId) {
    super(message);
    this.status = status;
    this.requestId = requestId;
    const retry = details.find((detail) => detail["@type"]?.endsWith("google.rpc.RetryInfo"));
    this.retryDelay = retry?.retryDelay;
  }
}

async function post(method, message, signal) {
  const headers = { "content-type": "application/json" };
  if (bearerToken) headers.authorization = `Bearer ${bearerToken}`;
  let response;
  try {
    response = await fetch(`/api/seqserve.v1.${method}`, {
      method: "POST", headers, body: JSON.stringify(message), signal, credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError({ status: "UNAVAILABLE", message: "the server cannot be reached" });
  }
  if (!response.ok) throw await readError(response);
  return response;
}

async function readError(response) {
  const requestId = response.headers.get("x-request-id") ?? undefined;
  try {
    return new CallError((await response.json()).error, requestId);
  } catch {
    return new CallError({ status: `HTTP ${response.status}`, message: "no answer of the server's" }, requestId);
  }
}

/** Makes a call with one answer. */
async function call(method, message, signal) {
  return (await post(method, message, signal)).json();
}

/** Makes a call with a stream of answers; gives each as it comes. */
async function* stream(method, message, signal) {
  const response = await post(method, message, signal);
  const requestId = response.headers.get("x-request-id") ?? undefined;
  let rest = "";
  const chunks = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    let chunk;
    try {
      chunk = await chunks.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new CallError({ status: "UNAVAILABLE", message: "the answer was cut off" }, requestId);
    }
    if (chunk.done) return;
    const lines = (rest + chunk.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const answer = JSON.parse(line);
      if (answer.error) throw new CallError(answer.error, requestId);
      yield answer;
    }
  }
}

/** Shows an error above everything, or takes it away again. */
function showError(error) {
  const place = document.getElementById("alert");
  place.hidden = !error;
  if (!error) return place.replaceChildren();
  if (!(error instanceof CallError)) console.error(error);
  const notes = [
    error.retryDelay && `try again in ${error.retryDelay.replace("s", " s")}`,
    error.requestId && `request ${error.requestId}`,
  ].filter(Boolean);
  place.replaceChildren(
    element("strong", {}, error.status ?? "Error"),
    element("p", { dir: "auto" }, error.message),
    element("small", {}, notes.join(" · ")),
  );
}

/** Does work that a person has asked for; the one before it ends, and so do its calls. */
class Work {
  #controller = null;

  /** `run` gets a signal; what it throws is shown. Returns whether it was done to the end. */
  async start(run) {
    this.stop();
    const controller = (this.#controller = new AbortController());
    showError(null);
    try {
      await run(controller.signal);
      return !controller.signal.aborted;
    } catch (error) {
      if (!controller.signal.aborted) showError(error);
      return false;
    } finally {
      if (this.#controller === controller) this.#controller = null;
    }
  }

  stop() {
    this.#controller?.abort();
    this.#controller = null;
  }

  get isRunning() {
    return this.#controller !== null;
  }
}
