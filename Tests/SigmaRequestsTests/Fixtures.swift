import Sigma
import SigmaRequests
import Testing

/// A vocabulary of the 256 bytes, some words, the format's specials, and rows without a token.
enum Vocabulary {
    static let words = ["He", "llo", " wor", "ld", "lo"]
    static let specials = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    static let chatMLSpecials = ["<|im_start|>", "<|im_end|>"]
    static let count = 300

    static func id(_ name: String) -> Int32 {
        Int32(256 + (words + specials + chatMLSpecials).firstIndex(of: name)!)
    }

    static func tokenizer(addsBos: Bool = false) throws -> Tokenizer {
        let named = words + specials + chatMLSpecials
        let tokens = (0..<256).map { [UInt8($0)] } + named.map { Array($0.utf8) }
        let gap = count - tokens.count
        return try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable(tokens + Array(repeating: [], count: gap)),
                kinds: Array(repeating: .normal, count: 256 + words.count)
                    + Array(repeating: .control, count: named.count - words.count)
                    + Array(repeating: .unused, count: gap),
                mergeRule: .byRank, pattern: .o200k, normalizer: .none, bos: id("<|bos|>"), eos: id("<|end|>"),
                addsBos: addsBos))
    }

    static func context(
        style: ChatFormat.Style = .sigma, opensThinking: Bool = false, addsBos: Bool = false, limit: Int = 1000
    ) throws -> RequestContext {
        let tokenizer = try tokenizer(addsBos: addsBos)
        let choosable = TokenMask(vocabularySize: count) { tokenizer.isAllowed($0) }
        return RequestContext(
            tokenizer: tokenizer,
            chatFormat: ChatFormat(
                style: style, opensThinking: opensThinking, thinkingPrompt: "Think.", closingPhrase: "Enough.",
                stopTokens: []),
            vocabularySize: count, positionLimit: limit,
            constraints: AnswerConstraints(tokenizer, choosable: choosable, stopTokens: [id("<|end|>")]))
    }
}

extension ChatCompletionBody {
    init(text: String) throws {
        let bytes = Array(text.utf8)
        self = try bytes.withUnsafeBytes { try ChatCompletionBody(bytes: $0) }
    }

    /// One question, and further members.
    static func asking(_ members: String = "") throws -> ChatCompletionBody {
        let more = members.isEmpty ? "" : "," + members
        return try ChatCompletionBody(text: #"{"messages":[{"role":"user","content":"Hi"}]\#(more)}"#)
    }
}

extension CompletionBody {
    init(text: String) throws {
        let bytes = Array(text.utf8)
        self = try bytes.withUnsafeBytes { try CompletionBody(bytes: $0) }
    }

    static func continuing(_ members: String = "") throws -> CompletionBody {
        let more = members.isEmpty ? "" : "," + members
        return try CompletionBody(text: #"{"prompt":"Hello"\#(more)}"#)
    }
}

extension RequestContext {
    /// What the ids say, specials by name.
    func text(_ request: GenerationRequest) -> String {
        String(decoding: tokenizer!.decode(request.tokens, specials: .named), as: UTF8.self)
    }
}

extension Statistics {
    static func ended(
        _ reason: FinishReason = .stop, prompt: Int = 0, reused: Int = 0, thinking: Int = 0, answer: Int = 0,
        stopToken: AnswerToken? = nil
    ) -> Statistics {
        var statistics = Statistics()
        statistics.reason = reason
        statistics.promptTokens = prompt
        statistics.reusedPromptTokens = reused
        statistics.thinkingTokens = thinking
        statistics.answerTokens = answer
        statistics.stopToken = stopToken
        return statistics
    }
}

/// The error that `body` throws.
func refusal(_ body: () throws -> Void) -> RequestError? {
    do {
        try body()
        return nil
    } catch { return error as? RequestError }
}
