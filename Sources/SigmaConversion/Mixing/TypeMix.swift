import Sigma

/// A type for each part of a model, so that the whole costs least divergence for its bytes.
///
/// The divergences of parts are added, as small independent errors add up. Of each part only the types on the lower convex hull of
/// divergence over bytes matter. All parts begin with their smallest type; then the step to the next one that saves most divergence per
/// byte is taken as long as there is room.
package struct TypeMix: Sendable {
    /// What a mix is held to.
    package enum Limit: Sendable {
        /// Bytes of the file.
        case bytes(Int)
        /// Bits per weight, over all weights that have a type chosen.
        case bits(Double)
    }

    /// Bytes of a part in a type.
    package typealias ByteCount = (WeightPlan.Part, WeightType) -> Int

    /// [parts]
    package let types: [WeightType]
    /// Bytes of all parts.
    package let byteCount: Int
    /// Nats per token, estimated.
    package let divergence: Double

    /// Bytes of all parts in their smallest types.
    package static func leastBytes(
        _ parts: [WeightPlan.Part], _ sensitivity: Sensitivity, fixed: [WeightType?],
        size: ByteCount = { $0.byteCount($1) }
    ) -> Int {
        parts.indices.reduce(0) {
            $0 + hull(choices(parts[$1], sensitivity.parts[$1], fixed: fixed[$1], size))[0].byteCount
        }
    }

    private struct Choice {
        var type: WeightType
        var byteCount: Int
        var divergence: Double
    }

    /// - Parameters:
    ///   - parts: all of the model's; `sensitivity` has the same ones.
    ///   - fixed: [parts] the types that are settled; nil: to be chosen.
    ///   - budget: bytes of all parts.
    ///   - size: what a part takes in the file.
    /// - Returns: nil if even the smallest types need more.
    package init?(
        _ parts: [WeightPlan.Part], _ sensitivity: Sensitivity, fixed: [WeightType?], budget: Int,
        size: ByteCount = { $0.byteCount($1) }
    ) {
        let hulls = parts.indices.map {
            Self.hull(Self.choices(parts[$0], sensitivity.parts[$0], fixed: fixed[$0], size))
        }
        var taken = [Int](repeating: 0, count: parts.count)
        var bytes = hulls.reduce(0) { $0 + $1[0].byteCount }
        guard bytes <= budget else { return nil }
        struct Step {
            var part: Int
            var index: Int
            var bytes: Int
            var gain: Double
        }
        var steps: [Step] = []
        for (part, hull) in hulls.enumerated() {
            for index in 1..<hull.count {
                let bytes = hull[index].byteCount - hull[index - 1].byteCount
                let saved = hull[index - 1].divergence - hull[index].divergence
                steps.append(Step(part: part, index: index, bytes: bytes, gain: saved / Double(bytes)))
            }
        }
        // Along a hull gains fall, so the steps of a part stay in order; equal ones by their place, for the same file everywhere.
        steps.sort { ($1.gain, $0.part, $0.index) < ($0.gain, $1.part, $1.index) }
        for step in steps where taken[step.part] == step.index - 1 && bytes + step.bytes <= budget {
            taken[step.part] = step.index
            bytes += step.bytes
        }
        let chosen = zip(hulls, taken).map { $0[$1] }
        types = chosen.map(\.type)
        byteCount = bytes
        divergence = chosen.reduce(0) { $0 + $1.divergence }
    }

    private static func choices(
        _ part: WeightPlan.Part, _ measured: Sensitivity.Part, fixed: WeightType?, _ size: ByteCount
    ) -> [Choice] {
        func choice(_ type: WeightType) -> Choice? {
            measured.divergence(type).map {
                Choice(type: type, byteCount: size(part, type), divergence: $0)
            }
        }
        if let fixed { return [choice(fixed) ?? Choice(type: fixed, byteCount: size(part, fixed), divergence: 0)] }
        let source = part.matrices[0].type
        return ([source] + WeightType.quantizers(columns: part.columns)).compactMap(choice)
    }

    /// The choices on the lower convex hull, from the smallest to the one of least divergence.
    private static func hull(_ choices: [Choice]) -> [Choice] {
        let sorted = choices.sorted { ($0.byteCount, $0.divergence) < ($1.byteCount, $1.divergence) }
        var hull: [Choice] = []
        for choice in sorted {
            if let last = hull.last, choice.divergence >= last.divergence || choice.byteCount == last.byteCount {
                continue
            }
            while hull.count > 1 {
                let (a, b) = (hull[hull.count - 2], hull[hull.count - 1])
                let before = (a.divergence - b.divergence) / Double(b.byteCount - a.byteCount)
                let after = (b.divergence - choice.divergence) / Double(choice.byteCount - b.byteCount)
                guard after >= before else { break }
                hull.removeLast()
            }
            hull.append(choice)
        }
        return hull
    }
}

extension WeightType {
    /// The quantized types that rows of `columns` floats can be converted to.
    static func quantizers(columns: Int) -> [WeightType] {
        allCases.filter { $0.isTarget && $0.isQuantized && columns % $0.blockLength == 0 }
    }
}
