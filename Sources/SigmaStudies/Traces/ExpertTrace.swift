import Sigma

/// Which experts every token used, in a compact file; `docs/expert-trace.md` is the specification.
package enum ExpertTrace {
    static let magic: [UInt8] = Array("SIGTRACE".utf8)
    static let version: UInt32 = 1
    /// Up to the name.
    static let fixedHeaderBytes = 36
    /// Before the rows; a checksum of 4 bytes follows them.
    static let blockHeaderBytes = 16
    /// What a reader accepts, so that a damaged count cannot take all memory.
    static let layerLimit = 4096
    static let expertLimit = 65536
    static let nameLimit = 1024
    static let rowLimit = 65536

    /// The model that a trace was made with.
    package struct Model: Sendable, Equatable {
        package var name: String
        /// The model file's header checksum: it covers the checksums of all records, so it tells apart any two files.
        package var checksum: UInt32
        package var vocabularySize: Int
        package var expertCount: Int
        /// One entry a layer: experts that a token uses; 0 in dense layers.
        package var choices: [Int]

        package init(name: String, checksum: UInt32, vocabularySize: Int, expertCount: Int, choices: [Int]) {
            self.name = name
            self.checksum = checksum
            self.vocabularySize = vocabularySize
            self.expertCount = expertCount
            self.choices = choices
        }

        package init(_ file: ModelFile) {
            let c = file.configuration
            self.init(
                name: file.name, checksum: file.headerChecksum, vocabularySize: c.vocabularySize,
                expertCount: c.expertCount, choices: c.expertsPerToken)
        }

        /// Choices of a token in all layers.
        package var choicesPerToken: Int { choices.reduce(0, +) }
        /// Bytes of an expert's index.
        var indexBytes: Int { expertCount <= 256 ? 1 : 2 }
        var tokenBytes: Int { 4 + choicesPerToken * indexBytes }
    }

    /// Successive tokens of one sequence that were computed in one step.
    package struct Block: Sendable, Equatable {
        /// Tells the sequences of a trace apart.
        package var sequence: UInt32
        /// Of the first token in its sequence.
        package var position: UInt32
        package var tokens: [Int32]
        /// [tokens, choicesPerToken]: experts layer by layer, the preferred first.
        package var choices: [Int32]

        package init(sequence: UInt32, position: UInt32, tokens: [Int32], choices: [Int32]) {
            self.sequence = sequence
            self.position = position
            self.tokens = tokens
            self.choices = choices
        }
    }
}
