// Asking the service: the key, the answer, and what went wrong in words.

const KEY_NAME = "multigrain-key";

// A problem the person should read: a title and a sentence; the status where there was an answer.
export class Trouble extends Error {
  constructor(title, detail, status = null) {
    super(detail);
    this.title = title;
    this.status = status;
  }
}

// The key lives as long as the tab, and is sent as a header only.
const key = () => sessionStorage.getItem(KEY_NAME);

export function hasKey() {
  return key() !== null;
}

export function setKey(value) {
  sessionStorage.setItem(KEY_NAME, value);
}

export async function request(url, options = {}) {
  const headers = { ...options.headers };
  if (hasKey()) {
    headers.Authorization = `Bearer ${key()}`;
  }
  let response;
  try {
    response = await fetch(url, { ...options, headers });
  } catch {
    throw new Trouble("The service does not answer", "Is it still running? Try again in a moment.");
  }
  if (!response.ok) {
    throw await troubleOf(response);
  }
  return response;
}

async function troubleOf(response) {
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  if (!isProblem) {
    const detail = `It sent status ${response.status}.`;
    return new Trouble("The service cannot answer", detail, response.status);
  }
  const problem = await response.json();
  const wait = response.headers.get("Retry-After");
  const detail = problem.detail + (wait ? ` (in ${wait} s)` : "");
  return new Trouble(problem.title, detail, response.status);
}

// Show what lies at a URL of the service; an image element alone could not send the key.
export async function showImage(image, url) {
  if (!hasKey()) {
    image.src = url;
    return;
  }
  image.dataset.wanted = url;
  try {
    const picture = await (await request(url)).blob();
    if (image.dataset.wanted !== url) {
      return; // another picture has taken its place
    }
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    image.src = URL.createObjectURL(picture);
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

// A picture still on its way to this element is not to be shown there.
export function forgetImage(image) {
  delete image.dataset.wanted;
}
