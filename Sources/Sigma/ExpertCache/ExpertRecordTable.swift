/// Where every expert's record lies in a model file.
package struct ExpertRecordTable: Sendable {
    package struct Place: Sendable {
        /// In the file; a multiple of 16384, as the size is.
        package var offset: Int
        package var byteCount: Int
        /// CRC-32C of the `byteCount` bytes.
        package var checksum: UInt32

        package init(offset: Int, byteCount: Int, checksum: UInt32) {
            self.offset = offset
            self.byteCount = byteCount
            self.checksum = checksum
        }
    }

    package let expertCount: Int
    package let layerCount: Int
    /// [records]; nil in dense layers.
    package let places: TypedArray<Record, Place?>
    /// Experts that a token uses in each layer.
    package let choices: [Int]
    package let path: String

    package init(expertCount: Int, choices: [Int], places: [Place?], path: String) {
        precondition(places.count == expertCount * choices.count)
        self.expertCount = expertCount
        layerCount = choices.count
        self.choices = choices
        self.places = TypedArray(places)
        self.path = path
    }

    package init(_ model: ModelFile) {
        let configuration = model.configuration
        let checksums = model.checksumsByOffset
        let base = model.gguf.file.bytes.baseAddress!
        var places: [Place?] = []
        for layer in model.weights.layers {
            if case .mixture(_, _, let experts, _) = layer.feedForward {
                for expert in 0..<configuration.expertCount {
                    let offset = experts.base - base + expert * experts.layout.stride
                    places.append(
                        Place(offset: offset, byteCount: experts.layout.stride, checksum: checksums[offset]!))
                }
            } else {
                places += Array(repeating: nil, count: configuration.expertCount)
            }
        }
        self.init(
            expertCount: configuration.expertCount, choices: configuration.expertsPerToken, places: places,
            path: model.path)
    }

    package var recordCount: Int { places.count }
    package var presentCount: Int { places.reduce(0) { $0 + ($1 == nil ? 0 : 1) } }
    /// The largest record.
    package var slotBytes: Int { places.reduce(0) { max($0, $1?.byteCount ?? 0) } }
    package var totalBytes: Int { places.reduce(0) { $0 + ($1?.byteCount ?? 0) } }
    /// Records that one token uses.
    package var recordsPerToken: Int { choices.reduce(0, +) }
    package func record(layer: Int, expert: Expert) -> Record { Record(layer * expertCount + expert.index) }
    package func layer(of record: Record) -> Int { record.index / expertCount }
    package func expert(of record: Record) -> Expert { Expert(record.index % expertCount) }
    package func name(of record: Record) -> String {
        "blk.\(layer(of: record)).\(ModelFileFormat.experts), expert \(expert(of: record))"
    }
}

extension ModelFile {
    /// The checksum of every record, by its offset in the file.
    package var checksumsByOffset: [Int: UInt32] {
        var result: [Int: UInt32] = [:]
        result.reserveCapacity(checksums.count)
        var record = 0
        for tensor in gguf.tensors.sorted(by: { $0.offset < $1.offset }) {
            let count = ModelFileFormat.isExperts(tensor.name) ? configuration.expertCount : 1
            for index in 0..<count {
                result[tensor.offset + index * (tensor.byteCount / count)] = UInt32(
                    truncatingIfNeeded: checksums.integer(record)!)
                record += 1
            }
        }
        return result
    }
}
