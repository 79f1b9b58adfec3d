// Waiting: between two looks at the server, and while nobody looks at the page.

/** Waits for so many seconds, and as long as nobody looks at the page. */
export async function until(seconds) {
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
