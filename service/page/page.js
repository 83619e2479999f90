// The page: one photo in, its nearest photos out. No library, no build step.

import { addRow, clearRows, countConditions, filterJson, learnFields } from "/page/filter.js";
import {
  appendHits,
  clearHits,
  counted,
  fileNameOf,
  showHits,
  showPlaceholders,
} from "/page/hits.js";
import {
  hideMore,
  isMoreFocused,
  listenForMore,
  offerMore,
  showMoreLoading,
  showMoreTrouble,
} from "/page/more.js";
import { forgetImage, hasKey, request, setKey, showImage, Trouble } from "/page/service.js";
import { showTiming } from "/page/timing.js";

// The service ranks no deeper than this.
const MAX_HITS = 1000;
const INCLUDE = "metadata,thumbnail_url";
// The largest thumbnail there is stands for the original when a hit becomes the query.
const QUERY_THUMBNAIL_SIZE = 512;
const OPENING_POLL_MS = 1000;
const UNAUTHORIZED = 401;
const NARROW = window.matchMedia("(max-width: 820px)"); // as in page.css

const byId = (id) => document.getElementById(id);
const app = byId("app");
// The service may allow fewer than the page would show.
const NUM_HITS = Number(app.dataset.numHits);
const preview = byId("preview");

// What was asked last: a photo of the person's ({ photo }), or one of the collection ({ id }).
let query = null;
let latestSearch = 0;
// What the hits shown answer: { query, filter, dedup }, then also { embedding, generation, end,
// collapsed }.
let shown = null;

function ask(next) {
  query = next;
  if (next.photo) {
    showPreview(next.photo);
  } else {
    setPreview("");
    showImage(preview, `/images/${next.id}/thumbnail?size=${QUERY_THUMBNAIL_SIZE}`);
  }
  return search();
}

async function search() {
  const thisSearch = ++latestSearch;
  const isLatest = () => thisSearch === latestSearch;
  const asked = { query, filter: filterJson(), dedup: byId("dedup").checked };
  showLoading();
  try {
    const response = await send(asked);
    const answer = await response.json();
    if (isLatest()) {
      showAnswer(asked, answer, response.headers.get("Server-Timing"));
    }
  } catch (error) {
    if (isLatest()) {
      if (query.photo) {
        clearHits(); // those a photo was chosen from stay: another one may still be there
      }
      byId("timing").hidden = true;
      showTrouble(error);
    }
  }
}

// The hits behind those shown; what else was asked is as with the first ones, whatever is typed by
// now.
async function searchMore() {
  const thisSearch = latestSearch;
  showMoreLoading();
  try {
    const answer = await (await send(shown)).json();
    if (thisSearch !== latestSearch) {
      return;
    }
    if (answer.generation === shown.generation) {
      showNext(answer);
    } else {
      search(); // another generation is another ranking
    }
  } catch (error) {
    if (thisSearch === latestSearch) {
      showMoreTrouble(error);
    }
  }
}

// A photo is sent once: its embedding stands for it when more hits are wanted.
function send({ query: { photo, id }, filter, dedup, embedding, end = 0 }) {
  const limit = Math.min(NUM_HITS, MAX_HITS - end);
  const parameters = new URLSearchParams({ limit, offset: end, include: INCLUDE });
  if (dedup) {
    parameters.set("dedup", "true");
  }
  if (filter !== null) {
    parameters.set("filter", filter);
  }
  if (!photo) {
    return request(`/images/${id}/similar?${parameters}`);
  }
  if (embedding) {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ embedding });
    return request(`/search?${parameters}`, { method: "POST", headers, body });
  }
  parameters.set("include", `${INCLUDE},query_embedding`);
  const form = new FormData();
  form.append("image", photo, "photo");
  return request(`/search?${parameters}`, { method: "POST", body: form });
}

function showPreview(photo) {
  setPreview(URL.createObjectURL(photo));
}

function setPreview(url) {
  URL.revokeObjectURL(preview.src);
  forgetImage(preview);
  if (url) {
    preview.src = url;
  } else {
    preview.removeAttribute("src");
  }
  preview.hidden = false;
  byId("drop").classList.add("has-photo");
}

function showLoading() {
  app.dataset.state = "loading";
  app.setAttribute("aria-busy", "true");
  byId("caption").textContent = query.caption;
  byId("status").textContent = "Searching";
  byId("error").hidden = true;
  byId("empty").hidden = true;
  hideMore();
  showPlaceholders();
}

function showAnswer(asked, answer, serverTiming) {
  settle("answered");
  const { generation, count, query_embedding: embedding, collapsed = 0 } = answer;
  shown = { ...asked, embedding, generation, end: count, collapsed };
  byId("caption").textContent = [query.caption, ...facts(answer.query)].join(" · ");
  learnFields(answer.results);
  showHits(answer.results, searchFrom);
  showTiming(serverTiming, answer.batch_size);
  showEnd(answer.has_more);
}

function showNext(answer) {
  shown.end = answer.offset + answer.count;
  shown.collapsed += answer.collapsed ?? 0;
  learnFields(answer.results);
  const first = appendHits(answer.results, searchFrom);
  if (isMoreFocused()) {
    first?.focus({ preventScroll: true }); // the keyboard goes on where the new ones begin
  }
  showEnd(answer.has_more);
}

// How many there are, and whether others follow.
function showEnd(hasMore) {
  byId("status").textContent = summary(shown.end, hasMore);
  if (shown.end >= MAX_HITS) {
    offerMore(false, `The ${MAX_HITS} nearest are shown: a filter finds others`);
  } else {
    offerMore(hasMore, shown.end > NUM_HITS ? "That is all" : "");
  }
}

// Of a photo of the collection nothing is told beside its name.
function facts(photo) {
  if (!photo) {
    return [];
  }
  const size = `${photo.width} × ${photo.height}`;
  return [size, photo.format, ...(photo.exif_rotated ? ["turned upright"] : [])];
}

function summary(count, hasMore) {
  if (count > 0) {
    const leftOut = shown.collapsed ? `, ${counted(shown.collapsed)} left out` : "";
    return `${count} ${hasMore ? "shown" : "found"}, nearest first${leftOut}`;
  }
  if (shown.filter !== null) {
    return "No photo meets the filter";
  }
  return query.photo ? "The collection is empty" : "The collection has no other photo";
}

function searchFrom(hit) {
  window.scrollTo({ top: 0 });
  ask({ id: hit.id, caption: fileNameOf(hit.uri) });
}

function showTrouble(error) {
  settle("failed");
  byId("status").textContent = "";
  byId("error-title").textContent = error.title ?? "Something went wrong on this page";
  byId("error-detail").textContent = error.message;
  byId("error").hidden = false;
  byId("empty").hidden = true;
  hideMore();
  byId("key-form").hidden = error.status !== UNAUTHORIZED;
  if (error.status === UNAUTHORIZED) {
    byId("error-detail").textContent = hasKey()
      ? "The key is not known."
      : "This service answers only with a key.";
    byId("key").focus();
  }
}

function settle(state) {
  app.dataset.state = state;
  app.setAttribute("aria-busy", "false");
}

function searchWithFirst(files) {
  const [file] = files;
  if (file) {
    ask({ photo: file, caption: file.name });
  }
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

function listenForPhotos() {
  for (const picker of document.querySelectorAll(".picker")) {
    picker.addEventListener("change", () => {
      searchWithFirst(picker.files);
      picker.value = ""; // so that the same photo can be picked again
    });
  }
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

function listenForForms() {
  byId("filter-add").addEventListener("click", () => addRow().querySelector(".field").focus());
  byId("filter").addEventListener("toggle", () => {
    if (byId("filter").open && byId("filter-rows").children.length === 0) {
      addRow();
    }
  });
  byId("filter-form").addEventListener("submit", (event) => {
    event.preventDefault();
    applyFilter();
    if (NARROW.matches) {
      byId("filter").open = false; // what was found would be out of sight
      byId("filter").querySelector("summary").focus();
    }
  });
  byId("filter-clear").addEventListener("click", () => {
    clearRows();
    byId("filter").open = false;
    applyFilter();
  });
  byId("dedup").addEventListener("change", searchAgain);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value);
    byId("key").value = "";
    ask(query);
  });
}

function applyFilter() {
  const count = countConditions();
  byId("filter-count").textContent = count === 0 ? "" : ` (${count})`;
  searchAgain();
}

function searchAgain() {
  if (query !== null) {
    search();
  }
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

listenForPhotos();
listenForForms();
listenForMore(searchMore);
showCollection();
