/// What stands around the turns of a conversation.
extension ChatFormat.Style {
    /// A piece of markup.
    package enum Mark: Sendable, Equatable {
        /// A control token, by its text.
        case special(String)
        case text(String)

        /// As templates write it.
        package var written: String {
            switch self {
            case .special(let name): name
            case .text(let text): text
            }
        }
    }

    package enum Role: String, Sendable {
        case system, user, assistant
        /// Results of functions, where they have turns of their own.
        case tool = "ipython"
    }

    package func turnStart(_ role: Role) -> [Mark] {
        switch self {
        case .sigma: [.special("<|\(role.rawValue)|>")]
        case .chatml: [.special("<|im_start|>"), .text(role.rawValue + "\n")]
        case .llama3:
            [
                .special("<|start_header_id|>"), .text(role.rawValue), .special("<|end_header_id|>"), .text("\n\n"),
            ]
        case .deepseek:
            switch role {
            case .system: []
            case .user, .tool: [.special("<｜User｜>")]
            case .assistant: [.special("<｜Assistant｜>")]
            }
        }
    }

    package func turnEnd(_ role: Role) -> [Mark] {
        switch self {
        case .sigma: [.special("<|end|>")]
        case .chatml: [.special("<|im_end|>"), .text("\n")]
        case .llama3: [.special("<|eot_id|>")]
        case .deepseek: role == .assistant ? [.special("<｜end▁of▁sentence｜>")] : []
        }
    }

    /// The control token with which a model ends its turn.
    package var endOfTurn: String {
        let specials = turnEnd(.assistant).compactMap { mark in
            if case .special(let name) = mark { name } else { nil }
        }
        return specials[0]
    }

    /// All control tokens of the markup.
    package var controlTokens: [String] {
        var names: [String] = []
        for role in [Role.system, .user, .assistant] {
            for case .special(let name) in turnStart(role) + turnEnd(role) where !names.contains(name) {
                names.append(name)
            }
        }
        return names
    }

    /// Whether prompts begin with the tokenizer's bos, whatever it does with raw text.
    package var beginsText: Bool { self != .chatml }

    /// Whose turn the results of functions are.
    package var resultsRole: Role { self == .llama3 ? .tool : .user }

    /// What stands between `<think>`, `</think>` and the texts beside them.
    package var thinkingGap: String { self == .sigma ? "" : "\n" }
}

extension [ChatFormat.Style.Mark] {
    /// As templates write it.
    package var written: String { map(\.written).joined() }
}
