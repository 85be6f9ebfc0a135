/** Whether the model that an adapter is for is the teacher as well, none of whose weights learn: one copy does. */
import { realpath } from "node:fs/promises";
import type { LoraSettings } from "../model/lora.js";
import { isUrl } from "./config-checks.js";

export async function isOwnTeacher(teacher: string | null, model: string, lora: LoraSettings | null): Promise<boolean> {
  if (lora === null || lora.modules_to_save.length > 0 || teacher === null || isUrl(teacher)) return false;
  return (await realpath(teacher)) === (await realpath(model));
}
