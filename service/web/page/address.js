// The address of what is open: `#/model/version/norm/channel`, each part optional from the right.

/** A link to a version, one of its norms, or a channel of that. */
export const address = ({ model, version }, ...rest) =>
  "#/" + [model, version, ...rest].map(encodeURIComponent).join("/");

/** What the address names; nothing where it is not one that a link here made. */
export function route() {
  if (!location.hash.startsWith("#/")) return {};
  try {
    const [model, version, norm, channel] = location.hash.slice(2).split("/").map(decodeURIComponent);
    return { model, version: Number(version), norm, channel: channel && (Number(channel) || 0) };
  } catch {
    return {};
  }
}

export const same = (one, other) => Boolean(one && other) && one.model === other.model && one.version === other.version;
