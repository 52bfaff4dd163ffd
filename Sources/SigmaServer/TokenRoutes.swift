import Hummingbird
import Sigma
import SigmaRequests

/// `/tokenize`, `/detokenize` and `/tokenizer_info`: the tokenizer for clients that count and build prompts themselves.
struct TokenRoutes: Sendable {
    let model: ServedModel

    func tokenize(_ request: Request) async throws -> Response {
        let host = try model.host()
        let tokenizer = try tokenizer(host)
        return try await request.read { bytes in
            let body = try TokenizeBody(bytes: bytes)
            let isRaw = body.addsSpecials && tokenizer.addsBos
            let bos = isRaw ? tokenizer.bos.map { [$0] } ?? [] : []
            let tokens = bos + tokenizer.encode(body.prompt, recognizingSpecials: true)
            var json = JSONWriter()
            json.object { json in
                json.array("tokens") { json in for token in tokens { json.value(Int(token)) } }
                json.field("count", tokens.count)
                json.field("max_model_len", host.context.positionLimit)
            }
            return Response.json(json.text)
        }
    }

    func detokenize(_ request: Request) async throws -> Response {
        let host = try model.host()
        let tokenizer = try tokenizer(host)
        return try await request.read { bytes in
            let body = try DetokenizeBody(bytes: bytes, vocabularySize: host.context.vocabularySize)
            var json = JSONWriter()
            json.object { json in
                json.field("prompt", String(decoding: tokenizer.decode(body.tokens, specials: .named), as: UTF8.self))
            }
            return Response.json(json.text)
        }
    }

    /// In the words of Hugging Face's tokenizer configurations.
    func information() throws -> Response {
        let host = try model.host()
        let tokenizer = try tokenizer(host)
        var json = JSONWriter()
        json.object { json in
            json.field("tokenizer_class", "SigmaTokenizer")
            json.field("model_max_length", host.context.positionLimit)
            json.field("vocab_size", host.context.vocabularySize)
            json.field("add_bos_token", tokenizer.addsBos)
            write("bos_token", tokenizer.bos, tokenizer, to: &json)
            write("eos_token", tokenizer.eos, tokenizer, to: &json)
            write("pad_token", tokenizer.eos, tokenizer, to: &json)
            json.key("chat_template")
            json.null()
        }
        return Response.json(json.text)
    }

    private func write(_ name: String, _ id: Int32?, _ tokenizer: Tokenizer, to json: inout JSONWriter) {
        json.key(name)
        if let id {
            json.value(String(decoding: tokenizer.decode([id], specials: .named), as: UTF8.self))
            json.field(name + "_id", Int(id))
        } else {
            json.null()
        }
    }

    private func tokenizer(_ host: ModelHost) throws -> Tokenizer {
        guard let tokenizer = host.context.tokenizer else {
            throw Refusal(status: 400, "the model has no tokenizer", code: "unsupported_by_model")
        }
        return tokenizer
    }
}
