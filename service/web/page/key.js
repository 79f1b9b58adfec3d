// The key of a server that asks for one: in this tab's memory alone, gone when the tab is.

const dialog = document.getElementById("key-dialog");
const field = document.getElementById("key");
const reason = document.getElementById("key-reason");
const opener = document.getElementById("key-opener");

let key = null;
let asking = null; // the promise that all who were refused wait for
let declined = false;

/** The headers that carry the key, where there is one. */
export const headers = () => (key === null ? {} : { Authorization: `Bearer ${key}` });

/** The key that was just sent, to be compared when an answer comes late. */
export const current = () => key;

/** Asks the reader for a key; whether there is another one than `refused`. A reader who said no is not asked again. */
export async function another(refused, why) {
  if (key !== refused) return true;
  opener.hidden = false;
  if (declined) return false;
  asking ??= ask(refused === null ? why : `That key was refused. ${why}`).finally(() => (asking = null));
  return asking;
}

function ask(why) {
  reason.textContent = why;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(taken(dialog.returnValue === "send" ? field.value.trim() : "")), { once: true });
  });
}

function taken(given) {
  field.value = "";
  dialog.returnValue = "";
  declined = given === "";
  if (declined) return false;
  key = given;
  return true;
}

/** Connects the dialog; `changed` is called when the reader has given a key unasked. */
export function connect(changed) {
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close(event.submitter?.value ?? "send");
  });
  opener.addEventListener("click", async () => {
    if (!asking && (await (asking = ask("Another key for this server.").finally(() => (asking = null))))) changed();
  });
}
