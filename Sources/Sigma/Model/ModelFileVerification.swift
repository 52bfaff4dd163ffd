import CSigma

extension ModelFile {
    /// Reads the whole file, compares every record's checksum, and looks for weights that are not finite.
    ///
    /// - Parameter progress: called with the share of bytes read, 0...1; returns false to stop.
    /// - Throws: `SigmaError`: `.damaged` naming the tensor (and expert), `.interrupted` if `progress` said so.
    package func verify(progress: (Double) -> Bool = { _ in true }) throws {
        let total = gguf.tensors.reduce(0) { $0 + $1.byteCount }
        let matrices = weights.matricesByPlace
        var done = 0
        var record = 0
        for tensor in gguf.tensors.sorted(by: { $0.offset < $1.offset }) {
            let experts = ModelFileFormat.isExperts(tensor.name) ? configuration.expertCount : 1
            let size = tensor.byteCount / experts
            for expert in 0..<experts {
                let start = tensor.offset + expert * size
                func failure(_ message: String, remedy: Remedy) -> SigmaError {
                    SigmaError(
                        .damaged, "\(experts > 1 ? "expert \(expert)'s record" : "the data") \(message)", path: path,
                        item: tensor.name, offset: UInt64(start), remedy: remedy)
                }
                var crc: UInt32 = 0
                // In pieces, so that a long tensor can be interrupted.
                for piece in stride(from: start, to: start + size, by: 1 << 24) {
                    let end = min(piece + 1 << 24, start + size)
                    crc = CRC32C.checksum(
                        UnsafeRawBufferPointer(rebasing: gguf.file.bytes[piece..<end]), continuing: crc)
                    done += end - piece
                    guard progress(Double(done) / Double(total)) else {
                        throw SigmaError(.interrupted, "interrupted", path: path)
                    }
                }
                try checkIntact()
                let expected = UInt32(truncatingIfNeeded: checksums.integer(record)!)
                guard crc == expected else {
                    throw failure(
                        "is damaged: expected checksum \(String(expected, radix: 16)), found \(String(crc, radix: 16))",
                        remedy: "Copy the file again from its source, or convert the checkpoint again.")
                }
                for matrix in matrices[gguf.file.bytes.baseAddress! + start] ?? [] {
                    if let row = matrix.firstRowNotFinite {
                        throw failure(
                            "has weights that are not finite, the first in row \(row) of \(matrix.rows)",
                            remedy: "Convert the original checkpoint again, or get another one.")
                    }
                }
                record += 1
            }
        }
    }
}

extension WeightMatrix {
    /// The first row (of a packed matrix the first of its group) that has an infinity or a NaN; nil if none has.
    var firstRowNotFinite: Int? {
        // One more carries out of an exponent whose bits are all set. Loops of such sums become vectors.
        func isFinite16(_ place: UnsafeRawPointer, exponent: UInt16, step: UInt16) -> Bool {
            var carries: UInt16 = 0
            for i in 0..<columns {
                let bits = UInt16(littleEndian: place.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
                carries |= (bits & exponent) &+ step
            }
            return carries & 0x8000 == 0
        }
        func isFinite32(_ place: UnsafeRawPointer) -> Bool {
            var carries: UInt32 = 0
            for i in 0..<columns {
                let bits = UInt32(littleEndian: place.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self))
                carries |= (bits & 0x7f80_0000) &+ 0x0080_0000
            }
            return carries & 0x8000_0000 == 0
        }
        for row in stride(from: 0, to: rows, by: type.groupRows) {
            let place = data(row: row)
            let isFinite =
                switch type {
                case .f32: isFinite32(place)
                case .bf16: isFinite16(place, exponent: 0x7f80, step: 0x0080)
                case .f16: isFinite16(place, exponent: 0x7c00, step: 0x0400)
                default: sigma_group_is_finite(Int32(type.rawValue), place, columns) != 0
                }
            if !isFinite { return row }
        }
        return nil
    }
}

extension ModelWeights {
    /// All matrices, by where the record begins that holds them.
    fileprivate var matricesByPlace: [UnsafeRawPointer: [WeightMatrix]] {
        // The head may be the embedding.
        var result = [embedding.data: [embedding]]
        result[head.data] = [head]
        for layer in layers {
            var matrices = [layer.query, layer.key, layer.value, layer.output]
            switch layer.feedForward {
            case .dense(let mlp): matrices += [mlp.gate, mlp.up, mlp.down]
            case .mixture(let router, _, let experts, let shared):
                matrices.append(router)
                if let shared { matrices += [shared.gate, shared.up, shared.down] }
                for expert in 0..<experts.count {
                    result[experts.record(expert)] = [experts.gate(expert), experts.up(expert), experts.down(expert)]
                }
            }
            for matrix in matrices { result[matrix.data] = [matrix] }
        }
        return result
    }
}
