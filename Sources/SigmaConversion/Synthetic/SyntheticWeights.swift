import Sigma

/// Seeded random weights for every role of a model, with balanced routers.
struct SyntheticWeights: WeightSources {
    private let configuration: ModelConfiguration
    private let scales: SyntheticScales
    private let random: SyntheticRandom
    private let pool: BlockPool
    private let headPool: BlockPool

    /// - Parameters:
    ///   - type: of all matrices but the head and the routers.
    ///   - headType: of the head.
    /// - Throws: `SigmaError`: as `SyntheticScales`.
    init(
        _ configuration: ModelConfiguration, _ scales: SyntheticScales, seed: UInt64, type: WeightType,
        headType: WeightType, threads: Int
    ) throws {
        self.configuration = configuration
        self.scales = scales
        random = SyntheticRandom(seed: seed)
        pool = try BlockPool(type, random.part(-1), threads: threads)
        headPool = headType == type ? pool : try BlockPool(headType, random.part(-1), threads: threads)
    }

    func find(_ role: WeightRole, rows: Int, columns: Int) throws -> (any MatrixSource)? {
        func matrix(_ number: Int, _ part: Int, expert: Int = 0, _ deviation: Double) -> any MatrixSource {
            SyntheticMatrix(
                pool: pool, random: random.part(1 + number).part(part).part(expert), deviation: deviation)
        }
        let plain = scales.plain(columns: columns)
        switch role {
        case .embedding: return matrix(-1, 0, scales.embedding)
        case .head:
            return SyntheticMatrix(
                pool: headPool, random: random.part(0).part(1), deviation: scales.logits * plain)
        case .finalNorm: return norm(random.part(0).part(2), columns, mean: 1)
        case .expert(let layer, let expert, let part):
            switch part {
            case .gate: return matrix(layer, 0, expert: expert, plain)
            case .up: return matrix(layer, 1, expert: expert, plain)
            case .down: return matrix(layer, 2, expert: expert, scales.expertDown(layer, columns: columns))
            }
        case .layer(let layer, let part):
            let parts = random.part(1 + layer)
            switch part {
            case .attention(.query): return matrix(layer, 3, plain)
            case .attention(.key): return matrix(layer, 4, plain)
            case .attention(.value): return matrix(layer, 5, plain)
            case .attention(.output): return matrix(layer, 6, scales.attentionOutput(layer, columns: columns))
            case .router:
                return StoredMatrix(SyntheticRouter.rows(rows, columns, norm: scales.routerNorm, parts.part(7)))
            case .attentionNorm: return norm(parts.part(8), columns, mean: 1)
            case .feedForwardNorm: return norm(parts.part(9), columns, mean: 1)
            case .queryNorm: return norm(parts.part(10), columns, mean: scales.queryKeyNorm)
            case .keyNorm: return norm(parts.part(11), columns, mean: scales.queryKeyNorm)
            case .attentionBias, .selectionBias, .dense, .shared: return nil
            }
        }
    }

    func missing(_ role: WeightRole) -> SigmaError {
        SigmaError(.unavailable, "synthetic models have no such weights", item: ModelFileFormat.name(role))
    }

    /// Within a tenth of `mean`.
    private func norm(_ random: SyntheticRandom, _ count: Int, mean: Double) -> any MatrixSource {
        StoredMatrix((0..<count).map { Float(mean * (0.9 + 0.2 * random.uniform($0))) })
    }
}

/// Rows of a router that prefer no expert: orthogonal, all of the same norm.
enum SyntheticRouter {
    /// `count` rows [count, width] in normal directions, made orthogonal one after the other (Gram and Schmidt); those beyond `width` rows
    /// begin anew.
    static func rows(_ count: Int, _ width: Int, norm: Double, _ random: SyntheticRandom) -> [Float] {
        let values = random.normals(count * width)
        var rows: [[Double]] = []
        for index in 0..<count {
            var row = values[index * width..<(index + 1) * width].map { Double($0) }
            for other in rows[(index / width * width)...] { add(-dot(row, other), other, to: &row) }
            let length = dot(row, row).squareRoot()
            rows.append(row.map { $0 / length })
        }
        return rows.flatMap { row in row.map { Float($0 * norm) } }
    }

    private static func dot(_ a: [Double], _ b: [Double]) -> Double {
        // Several sums, so that additions don't wait for each other.
        var sums = SIMD8<Double>.zero
        let whole = a.count / 8 * 8
        a.withUnsafeBufferPointer { a in
            b.withUnsafeBufferPointer { b in
                for i in stride(from: 0, to: whole, by: 8) {
                    let x = UnsafeRawPointer(a.baseAddress! + i).loadUnaligned(as: SIMD8<Double>.self)
                    let y = UnsafeRawPointer(b.baseAddress! + i).loadUnaligned(as: SIMD8<Double>.self)
                    sums += x * y
                }
            }
        }
        var sum = sums.sum()
        for i in whole..<a.count { sum += a[i] * b[i] }
        return sum
    }

    private static func add(_ factor: Double, _ row: [Double], to target: inout [Double]) {
        for i in target.indices { target[i] += factor * row[i] }
    }
}
