/** Whether a teacher is the model that an adapter is trained on, none of whose weights learn: one copy does for both. */
import { realpath } from "node:fs/promises";
import { type LoraSettings, placesOf } from "../model/lora.js";
import { isUrl } from "./config-checks.js";

/** The teacher's own adapter on the shared base, null for none. */
export type SharedBase = { readonly adapter: string | null };

/** null where the teacher needs weights of its own. An adapter that is `model` becomes part of the base that is trained on. */
export async function sharedBase(
  teacher: string | null,
  model: string,
  lora: LoraSettings | null,
): Promise<SharedBase | null> {
  if (lora === null || lora.modules_to_save.length > 0 || teacher === null || isUrl(teacher)) return null;
  const isSame = async (a: string, b: string) => (await realpath(a)) === (await realpath(b));
  if (await isSame(teacher, model)) return { adapter: null };
  const [theirs, ours] = [await placesOf(teacher), await placesOf(model)];
  return ours.adapter === null && (await isSame(theirs.dir, ours.dir)) ? { adapter: theirs.adapter } : null;
}
