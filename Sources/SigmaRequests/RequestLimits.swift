/// What one request may ask for.
package enum RequestLimits {
    /// Bytes of a body.
    package static let bodyBytes = 8 << 20
    /// Arrays and objects inside one another.
    package static let nesting = 64
    /// Answers: prompts times `n`.
    package static let choices = 2048
    package static let stopStrings = 16
    /// UTF-8 bytes of a stop string.
    package static let stopStringBytes = 1024
    package static let tools = 512
    /// Characters of a function's name.
    package static let functionNameCharacters = 128
    package static let biases = 1024
    /// Likeliest tokens at a position.
    package static let topLogProbabilities = 1024
    /// UTF-8 bytes of a short text that names something.
    package static let nameBytes = 512
}
