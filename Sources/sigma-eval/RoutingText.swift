import Sigma
import SigmaCommand

/// Texts of any length as windows of tokens, in bounded memory; and how far the work has come.
struct RoutingText {
    private let tokenizer: Tokenizer
    private let recognizingSpecials: Bool
    /// bos included.
    private let windowLength: Int
    private let bos: Int32?
    /// Of all texts; nil where one doesn't say.
    private let totalBytes: Int?

    private(set) var windows = 0
    /// Places where the text had to be cut anywhere: see `StreamingEncoder`.
    private(set) var forcedCuts = 0
    private var encodedBytes = 0
    private var encodedTokens = 0
    private var routedTokens = 0

    init(tokenizer: Tokenizer, recognizingSpecials: Bool, windowLength: Int, bos: Int32?, totalBytes: Int?) {
        self.tokenizer = tokenizer
        self.recognizingSpecials = recognizingSpecials
        self.windowLength = windowLength
        self.bos = bos
        self.totalBytes = totalBytes
    }

    /// Share of the bytes whose tokens are routed; nil if the length of the text is not known.
    var fraction: Double? {
        guard let totalBytes, totalBytes > 0, encodedTokens > 0 else { return nil }
        return Double(routedTokens) / Double(encodedTokens) * Double(encodedBytes) / Double(totalBytes)
    }

    mutating func routed(_ tokens: Int) { routedTokens += tokens }

    /// Calls `body` with each window of a file: a file begins one, and the last is as long as it comes out.
    mutating func read(_ path: String, _ body: (ArraySlice<Int32>, inout RoutingText) throws -> Void) throws {
        var encoder = StreamingEncoder(tokenizer, recognizingSpecials: recognizingSpecials)
        var waiting: [Int32] = []
        try InputFile.forEachPiece(of: path) { piece in
            encodedBytes += piece.count + encoder.heldBytes
            waiting += encoder.append(piece)
            encodedBytes -= encoder.heldBytes
            try take(&waiting, all: false, body)
        }
        encodedBytes += encoder.heldBytes
        waiting += encoder.finish()
        forcedCuts += encoder.forcedCuts
        try take(&waiting, all: true, body)
    }

    private mutating func take(
        _ waiting: inout [Int32], all: Bool, _ body: (ArraySlice<Int32>, inout RoutingText) throws -> Void
    ) throws {
        let start = bos.map { [$0] } ?? []
        let step = windowLength - start.count
        encodedTokens = routedTokens + waiting.count
        var first = 0
        while waiting.count - first >= (all ? 1 : step) {
            let tokens = waiting[first..<min(first + step, waiting.count)]
            first += tokens.count
            windows += 1
            encodedTokens += start.count
            try body(start + tokens, &self)
        }
        waiting.removeSubrange(..<first)
    }
}
