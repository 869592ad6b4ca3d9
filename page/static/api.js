// What the page asks its server for, besides streams.

let hello;

// greet fetches what every page needs to begin with: the token of its wishes, the address of Temporal's page.
export async function greet(again = false) {
  if (!hello || again) {
    hello = get("/api/hello");
    hello.catch(() => { hello = undefined; }); // asked again the next time
  }
  return hello;
}

export async function get(path, query = {}) {
  const text = new URLSearchParams(query).toString();
  return answer(await fetch(path + (text ? "?" + text : ""), { credentials: "same-origin" }));
}

// post tells a wish. A page that is older than its server has an old token: it gets the new one and tries once more.
export async function post(path, body = {}) {
  for (const again of [false, true]) {
    const { token } = await greet(again);
    const response = await fetch(path, {
      method: "POST", credentials: "same-origin", body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", "X-Groundplan-Token": token },
    });
    if (response.status !== 403 || again) return answer(response);
  }
}

async function answer(response) {
  let body;
  try {
    body = await response.json();
  } catch {
    throw new Error(response.ok ? "the answer can't be read" : `${response.status} ${response.statusText}`);
  }
  if (!response.ok) throw new Error(body.error ?? response.statusText);
  return body;
}

// runPath is the address of what concerns a run, and suitePath that of a suite.
export const runPath = (id, what) => `/api/runs/${encodeURIComponent(id)}/${what}`;
export const suitePath = (name, what) => `/api/suites/${encodeURIComponent(name)}/${what}`;
