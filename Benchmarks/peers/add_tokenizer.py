"""Copies a GGUF file without a tokenizer, and gives it one: llama-server turns every token into text, and aborts where it cannot.

    python add_tokenizer.py qwen3moe.gguf qwen3moe-tokens.gguf      # needs the gguf package, and the file's size on the disk

The tokens are names; weights and all else stay what they are.
"""

import sys

import gguf


def main():
    source, output = sys.argv[1:]
    reader = gguf.GGUFReader(source, "r")
    writer = gguf.GGUFWriter(output, arch=reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "tokenizer.")) and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), *field.types[:2])
    size = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight").shape[1]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<{index}>" for index in range(size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges(["< 1"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    for tensor in reader.tensors:
        writer.add_tensor_info(tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()


if __name__ == "__main__":
    main()
