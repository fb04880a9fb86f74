// What is asked of app/web/model_routes.py.

const LOST = "The server does not answer. Is Quest Chat still running?";

/** The server's answer, or {error: a sentence}; with `values` they are posted. */
export async function askModels(path, values) {
  const options = values && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(values),
  };
  try {
    const response = await fetch(`models${path}`, { cache: "no-store", ...options });
    return response.ok ? await response.json() : { error: "The server could not do that. Load the page anew." };
  } catch {
    return { error: LOST };
  }
}
