// The page: one photo in, its nearest photos out. No library, no build step.

const NUM_HITS = 24;
// The largest thumbnail there is stands for the original when a hit becomes the query.
const QUERY_THUMBNAIL_SIZE = 512;
const OPENING_POLL_MS = 1000;
const STAGES = ["receive", "decode", "queue", "infer", "search", "metadata"];

const byId = (id) => document.getElementById(id);
const app = byId("app");
const picker = byId("picker");
const preview = byId("preview");
const results = byId("results");

let latestSearch = 0;

// A problem the person should read: a title and a sentence.
class Trouble extends Error {
  constructor(title, detail) {
    super(detail);
    this.title = title;
  }
}

async function troubleOf(response) {
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  if (!isProblem) {
    return new Trouble("The service cannot answer", `It sent status ${response.status}.`);
  }
  const problem = await response.json();
  const wait = response.headers.get("Retry-After");
  return new Trouble(problem.title, problem.detail + (wait ? ` (in ${wait} s)` : ""));
}

async function request(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Trouble("The service does not answer", "Is it still running? Try again in a moment.");
  }
  if (!response.ok) {
    throw await troubleOf(response);
  }
  return response;
}

async function searchWith(photo, caption) {
  const thisSearch = ++latestSearch;
  const isLatest = () => thisSearch === latestSearch;
  showLoading(photo, caption);
  try {
    const form = new FormData();
    form.append("image", photo, "photo");
    const options = { method: "POST", body: form };
    const answer = await (await request(`/search?limit=${NUM_HITS}`, options)).json();
    if (isLatest()) {
      showAnswer(answer, caption);
    }
  } catch (error) {
    if (isLatest()) {
      results.replaceChildren();
      byId("timing").hidden = true;
      showTrouble(error);
    }
  }
}

async function searchFromHit(hit) {
  latestSearch += 1;
  try {
    const url = `/images/${hit.id}/thumbnail?size=${QUERY_THUMBNAIL_SIZE}`;
    const photo = await (await request(url)).blob();
    await searchWith(photo, fileNameOf(hit.uri));
    window.scrollTo({ top: 0 });
  } catch (error) {
    showTrouble(error); // the hits stay: another one may still be there
  }
}

function fileNameOf(uri) {
  return uri.split("/").pop();
}

function showLoading(photo, caption) {
  app.dataset.state = "loading";
  app.setAttribute("aria-busy", "true");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(photo);
  preview.hidden = false;
  byId("drop").classList.add("has-photo");
  byId("caption").textContent = caption;
  byId("status").textContent = "Searching";
  byId("error").hidden = true;
  byId("empty").hidden = true;
  if (results.children.length === 0) {
    results.replaceChildren(...Array.from({ length: 8 }, placeholder));
  }
}

function placeholder() {
  const item = byId("hit-template").content.firstElementChild.cloneNode(true);
  item.classList.add("waiting");
  item.setAttribute("aria-hidden", "true");
  item.querySelector("button").disabled = true;
  item.querySelector("img").remove();
  item.querySelector(".name").textContent = "\u00a0";
  return item;
}

function showAnswer(answer, caption) {
  settle("answered");
  const { width, height, format, exif_rotated: rotated } = answer.query;
  const facts = [caption, `${width} × ${height}`, format, rotated ? "turned upright" : ""];
  byId("caption").textContent = facts.filter(Boolean).join(" · ");
  byId("status").textContent =
    answer.count === 0 ? "The collection is empty" : `${answer.count} found, nearest first`;
  const hadFocus = results.contains(document.activeElement);
  results.replaceChildren(...answer.results.map(hitElement));
  if (hadFocus) {
    results.focus({ preventScroll: true }); // else the keyboard starts over at the top
  }
  showTiming(answer);
}

function hitElement(hit) {
  const item = byId("hit-template").content.firstElementChild.cloneNode(true);
  const name = fileNameOf(hit.uri);
  const score = hit.score.toFixed(4);
  const image = item.querySelector("img");
  image.addEventListener("error", () => item.classList.add("gone"));
  image.src = hit.thumbnail_url;
  item.querySelector(".rank").textContent = `#${hit.rank}`;
  item.querySelector(".score").textContent = score;
  item.querySelector(".name").textContent = name;
  const button = item.querySelector("button");
  button.title = hit.uri;
  button.setAttribute(
    "aria-label",
    `Rank ${hit.rank}, cosine ${score}, ${name}. Search from this photo.`,
  );
  button.addEventListener("click", () => searchFromHit(hit));
  return item;
}

function showTiming(answer) {
  const timing = answer.timing_ms;
  const shared = answer.batch_size > 1 ? `, in a batch of ${answer.batch_size}` : "";
  byId("timing").hidden = false;
  byId("timing-total").textContent = `Answered in ${timing.total.toFixed(1)} ms${shared}`;
  byId("timing-bar").replaceChildren(
    ...STAGES.map((stage) => {
      const part = document.createElement("i");
      part.className = stage;
      part.style.flexGrow = timing[stage];
      return part;
    }),
  );
  byId("timing-legend").replaceChildren(
    ...STAGES.map((stage) => {
      const line = document.createElement("div");
      line.className = stage;
      const term = document.createElement("dt");
      term.textContent = stage;
      const value = document.createElement("dd");
      value.textContent = `${timing[stage].toFixed(1)} ms`;
      line.append(term, value);
      return line;
    }),
  );
}

function showTrouble(error) {
  settle("failed");
  byId("status").textContent = "";
  byId("error-title").textContent = error.title ?? "Something went wrong on this page";
  byId("error-detail").textContent = error.message;
  byId("error").hidden = false;
  byId("empty").hidden = true;
}

function settle(state) {
  app.dataset.state = state;
  app.setAttribute("aria-busy", "false");
}

function searchWithFirst(files) {
  const [file] = files;
  if (file) {
    searchWith(file, file.name);
  }
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

function listen() {
  picker.addEventListener("change", () => {
    searchWithFirst(picker.files);
    picker.value = ""; // so that the same photo can be picked again
  });
  document.addEventListener("paste", (event) => searchWithFirst(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) {
      event.preventDefault();
      byId("dropping").classList.add("shown");
    }
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      byId("dropping").classList.remove("shown");
    }
  });
  document.addEventListener("drop", (event) => {
    byId("dropping").classList.remove("shown");
    if (hasFiles(event)) {
      event.preventDefault();
      searchWithFirst(event.dataTransfer.files);
    }
  });
  // What the browser cannot show (TIFF, say) the service may still read: the search goes on.
  preview.addEventListener("error", () => {
    preview.hidden = true;
    byId("drop").classList.remove("has-photo");
  });
}

async function showCollection() {
  let health;
  try {
    health = await (await fetch("/health")).json();
  } catch {
    showTrouble(new Trouble("The service does not answer", "Is it still running?"));
    return;
  }
  if (health.checks.index) {
    const count = health.checks.index.num_photos.toLocaleString("en");
    byId("collection").textContent = `${count} photos`;
  } else {
    byId("collection").textContent = "The collection is being opened";
    setTimeout(showCollection, OPENING_POLL_MS);
  }
}

listen();
showCollection();
