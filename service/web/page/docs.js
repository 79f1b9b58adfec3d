// The documentation of the API, from this server's own description and with nothing from elsewhere.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#documentation",
  validatorUrl: null, // the badge would ask another host
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
