/** What models on the hub are called: org/name, or org/name@revision; and the folders of its cache. */
import { HubError } from "./errors.js";

export interface ModelName {
  /** "google/gemma-2-2b-it" */
  readonly repo: string;
  /** A branch, a tag or a commit; null is the branch main. */
  readonly revision: string | null;
}

/** The part before and after the slash: letters, digits, - _ . within; as huggingface_hub's validate_repo_id has it. */
const REPO = /^(?=.{3,96}$)\w(?:[\w.-]*\w)?\/\w(?:[\w.-]*\w)?$/;

/** Whether a text could be a commit: nothing else is of this form. */
export const isCommit = (text: string): boolean => /^[0-9a-f]{40}$/.test(text);

/** The name in a text of the form org/name[@revision], or null where it is of another form. */
export function parseModelName(text: string): ModelName | null {
  const at = text.indexOf("@");
  const [repo, revision] = at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
  if (!REPO.test(repo) || /--|\.\.|\.git$/.test(repo)) return null;
  return revision === null || isRevision(revision) ? { repo, revision } : null;
}

/** Names of git may hold slashes, but no empty part and none of dots, which would lead out of a folder. */
export const isRevision = (text: string): boolean =>
  text.split("/").every((part) => /^[\w.+-]+$/.test(part) && !/^\.|\.\.|\.lock$/.test(part));

/** As parseModelName. @throws HubError where the text is of another form */
export function modelName(text: string): ModelName {
  const name = parseModelName(text);
  if (name !== null) return name;
  throw new HubError(
    `expected org/name or org/name@revision, such as google/gemma-2-2b-it, got ${JSON.stringify(text)}`,
  );
}

/** OWNER/NAME of a folder in the cache of the hub's library, whose path says it; null for other folders. */
export const hubName = (folder: string): string | null => inCache(folder)?.repo ?? null;

/** OWNER/NAME@COMMIT of such a folder, which names the same bytes on every machine; null for other folders. */
export function pinnedName(folder: string): string | null {
  const found = inCache(folder);
  return found !== null && isCommit(found.commit) ? `${found.repo}@${found.commit}` : null;
}

/** OWNER/NAME and the commit of such a folder; null for other folders. */
export function inCache(folder: string): { readonly repo: string; readonly commit: string } | null {
  const found = /(?:^|[\\/])models--([^\\/]+?)--([^\\/]+)[\\/]snapshots[\\/]([^\\/]+)[\\/]?$/.exec(folder);
  return found && { repo: `${found[1]}/${found[2]}`, commit: found[3]! };
}
