import Sigma

/// The least time that a step can take on a machine: over its parts, the sum of the longer of reading their bytes and doing their
/// multiply-adds.
struct Physics {
    let machine: Machine
    let configuration: ModelConfiguration
    let weights: ModelWeights
    /// Whether the planes find the largest logits, and the bytes of planes and head that a row of that reads (nil: the coarse plane alone).
    var screensHead = false
    var screenedBytes: Double?
    /// Bytes of 256 positions' keys and values.
    let kvBlockBytes: Int

    /// One matrix, or several: bytes that are read once, and multiply-adds.
    private func part(_ matrices: [WeightMatrix], rows: Double, share: Double = 1) -> Double {
        var seconds = 0.0
        for matrix in matrices {
            let peak = matrix.type.isQuantized ? machine.int8Peak : machine.fp32Peak
            let products = Double(matrix.rows * matrix.columns) * rows
            seconds += max(share * Double(matrix.byteCount) / machine.readBandwidth, products / peak)
        }
        return seconds
    }

    /// Seconds of a step with `rows` successive tokens of each of some sequences, the first at `position`.
    ///
    /// Routing is taken as uniform: n choices among E experts meet E (1 - (1 - 1/E)^n) of them.
    func step(rows: Int, sequences: Int = 1, position: Int, headRows: Int) -> Double {
        let c = configuration
        let n = Double(rows * sequences)
        var seconds = 0.0
        for (index, layer) in weights.layers.enumerated() {
            seconds += part([layer.query, layer.key, layer.value, layer.output], rows: n)
            seconds += Double(sequences) * attention(rows: Double(rows), position: Double(position))
            switch layer.feedForward {
            case .dense(let mlp): seconds += part([mlp.gate, mlp.up, mlp.down], rows: n)
            case .mixture(let router, _, let experts, let shared):
                seconds += part([router], rows: n)
                let choices = n * Double(c.expertsPerToken[index])
                let count = Double(experts.count)
                let met = count * (1 - pow(1 - 1 / count, choices))
                seconds += part([experts.gate(0), experts.up(0), experts.down(0)], rows: choices, share: met)
                if let shared { seconds += part([shared.gate, shared.up, shared.down], rows: n) }
            }
        }
        return seconds + head(rows: headRows)
    }

    private func head(rows: Int) -> Double {
        guard rows > 0 else { return 0 }
        guard screensHead, let planes = weights.screen else { return part([weights.head], rows: Double(rows)) }
        let products = Double(planes.rows * planes.columns * rows)
        let others = max(0, (screenedBytes ?? 0) - Double(planes.coarseBytes)) * Double(rows)
        return max(Double(planes.coarseBytes) / machine.readBandwidth, products / machine.int8Peak)
            + others / machine.readBandwidth
    }

    /// Keys and values of everything before are read once; each row meets what is before it.
    private func attention(rows: Double, position: Double) -> Double {
        let c = configuration
        let bytes = (position + rows) * Double(kvBlockBytes) / Double(KVBlockLayout.length * c.layerCount)
        let pairs = rows * (position + (rows + 1) / 2)
        let products = 2 * pairs * Double(c.headCount * c.headDim)
        return max(bytes / machine.readBandwidth, products / machine.fp32Peak)
    }

    private func pow(_ base: Double, _ exponent: Double) -> Double {
        // Whole exponents by squaring: no mathematics library is needed.
        var (result, factor, rest) = (1.0, base, Int(exponent))
        while rest > 0 {
            if rest & 1 == 1 { result *= factor }
            factor *= factor
            rest >>= 1
        }
        return result
    }

    /// Tokens per second of a prompt that is read in pieces of `rowLimit` tokens.
    func promptSpeed(tokens: Int, depth: Int, rowLimit: Int) -> Double {
        var seconds = 0.0
        for start in stride(from: 0, to: tokens, by: rowLimit) {
            let rows = min(rowLimit, tokens - start)
            seconds += step(rows: rows, position: depth + start, headRows: start + rows == tokens ? 1 : 0)
        }
        return Double(tokens) / seconds
    }

    /// Tokens per second of generation, of all sequences together, on the mean over `tokens` tokens of each from `depth` on.
    func generationSpeed(tokens: Int, depth: Int, sequences: Int = 1) -> Double {
        Double(sequences)
            / step(rows: 1, sequences: sequences, position: depth + tokens / 2, headRows: sequences)
    }
}
