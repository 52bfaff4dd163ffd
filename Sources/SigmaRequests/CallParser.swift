import Sigma

/// A piece of a call that an answer makes.
struct CallPiece: Equatable {
    /// The call's place among the answer's calls.
    var index: Int
    /// Where the call begins: the function that it calls.
    var name: String?
    /// What follows of the arguments' JSON.
    var arguments = ""
    /// Whether the call ends, complete.
    var isEnd = false
}

/// Separates an answer's text from the calls after it, however the text is cut into pieces.
///
/// The constraint holds every call to its form, so nothing is checked here. Line ends between the text and a call are no part of either. Where calls
/// do not follow text, a tag within the text is text.
struct CallParser {
    private enum Stage: Equatable {
        case text
        /// Text that no call can follow.
        case textOnly
        /// Behind the tag, before the arguments.
        case head
        /// So many brackets are open.
        case arguments(depth: Int, isInString: Bool, isEscaped: Bool)
        /// Behind the arguments, before the end of the tag.
        case tail
    }

    private static let openTag = Array(FunctionCalls.openTag.utf8)
    private static let closeTag = Array(FunctionCalls.closeTag.utf8)

    /// Whether a call may stand behind text.
    private let followsText: Bool
    private var stage = Stage.text
    /// Text that may yet belong to a tag; of a call's head, all of it.
    private var held: [UInt8] = []
    private var count = 0

    init(followsText: Bool) { self.followsText = followsText }

    /// Whether text waits that may be the answer's, or part of a call.
    var isUndecided: Bool { stage == .text && !held.isEmpty }
    var isInCall: Bool { stage != .text && stage != .textOnly || count > 0 }

    /// What of the answer so far is certain now: text, then pieces of calls.
    mutating func append(_ text: String) -> (text: String, calls: [CallPiece]) {
        var output = Output()
        for byte in text.utf8 { take(byte, &output) }
        output.addArguments(of: count)
        return (String(decoding: output.text, as: UTF8.self), output.pieces)
    }

    /// The end: text that was held back and is the answer's after all.
    /// - Parameter isCut: whether the answer could have gone on: then what may be a tag's begin is taken for one.
    mutating func finish(isCut: Bool) -> String {
        defer { held = [] }
        if isInCall || isCut && held.contains(Self.openTag[0]) { return "" }
        return String(decoding: held, as: UTF8.self)
    }

    private struct Output {
        var text: [UInt8] = []
        var pieces: [CallPiece] = []
        /// Of the last call, not in a piece yet.
        var arguments: [UInt8] = []

        mutating func addArguments(of call: Int) {
            guard !arguments.isEmpty else { return }
            let text = String(decoding: arguments, as: UTF8.self)
            arguments = []
            change(call) { $0.arguments = text }
        }

        /// Changes the last piece, if it is the call's, or a new one.
        mutating func change(_ call: Int, _ body: (inout CallPiece) -> Void) {
            if pieces.last?.index != call { pieces.append(CallPiece(index: call)) }
            body(&pieces[pieces.count - 1])
        }
    }

    private mutating func take(_ byte: UInt8, _ output: inout Output) {
        switch stage {
        case .text:
            held.append(byte)
            if !followsText, count == 0, !Self.openTag.starts(with: held) {
                output.text += held
                held = []
                stage = .textOnly
                return
            }
            let lineEnds = held.prefix { $0 == UInt8(ascii: "\n") }.count
            let tag = held[lineEnds...]
            if tag.elementsEqual(Self.openTag) {
                held = []
                stage = .head
            } else if !Self.openTag.starts(with: tag) {
                // A tag's first byte is nowhere else in it, so a new tag can only begin with this byte.
                let isStart = byte == Self.openTag[0] || byte == UInt8(ascii: "\n")
                if isStart { held.removeLast() }
                if count == 0 { output.text += held }
                held = isStart ? [byte] : []
            }
        case .textOnly: output.text.append(byte)
        case .head:
            // The first bracket is the call's, the second that of the arguments: names have none.
            guard byte == UInt8(ascii: "{"), held.contains(byte) else { return held.append(byte) }
            let words = held.split(separator: UInt8(ascii: "\""), omittingEmptySubsequences: false)
            let name = words.count > 3 ? String(decoding: words[3], as: UTF8.self) : ""
            output.change(count) { $0.name = name }
            held = []
            stage = .arguments(depth: 0, isInString: false, isEscaped: false)
            take(byte, &output)
        case .arguments(var depth, var isInString, var isEscaped):
            output.arguments.append(byte)
            if isInString {
                if !isEscaped, byte == UInt8(ascii: "\"") { isInString = false }
                isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
            } else {
                switch byte {
                case UInt8(ascii: "\""): isInString = true
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                default: break
                }
            }
            stage = depth == 0 ? .tail : .arguments(depth: depth, isInString: isInString, isEscaped: isEscaped)
        case .tail:
            held.append(byte)
            guard held.suffix(Self.closeTag.count).elementsEqual(Self.closeTag) else { return }
            output.addArguments(of: count)
            output.change(count) { $0.isEnd = true }
            count += 1
            held = []
            stage = .text
        }
    }
}
