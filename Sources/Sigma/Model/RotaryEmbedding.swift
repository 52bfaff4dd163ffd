import SystemLibrary

/// RoPE's angles. Frequencies and angles are rounded to fp32 where the models' own code rounds them, so that positions far out turn by the
/// same angle as in training.
struct RotaryEmbedding: Sendable {
    /// [headDim / 2]
    let frequencies: [Float]
    /// Factor of cosines and sines (YaRN's attention factor; otherwise 1).
    let magnitude: Float

    init(headDim: Int, theta: Float, scaling: ModelConfiguration.RopeScaling) {
        let half = headDim / 2
        let base = Double(theta)
        let periods = (0..<half).map { Float(pow(base, Double(2 * $0) / Double(headDim))) }
        switch scaling {
        case .none:
            frequencies = periods.map { 1 / $0 }
            magnitude = 1
        case .linear(let factor):
            frequencies = periods.map { 1 / $0 / factor }
            magnitude = 1
        case .divided(let divisors):
            frequencies = zip(periods, divisors).map { 1 / $0 / $1 }
            magnitude = 1
        case .yarn(let factor, let originalContext, let betaFast, let betaSlow, let attentionFactor, let truncate):
            // YaRN (Peng et al., 2023): fast dimensions keep their frequency, slow ones are interpolated, with a ramp between.
            func dimension(turning rotations: Float) -> Double {
                Double(headDim) * log(Double(originalContext) / (Double(rotations) * 2 * Double.pi)) / (2 * log(base))
            }
            var low = dimension(turning: betaFast)
            var high = dimension(turning: betaSlow)
            if truncate {
                low = low.rounded(.down)
                high = high.rounded(.up)
            }
            low = max(low, 0)
            high = min(high, Double(headDim - 1))
            if low == high { high += 0.001 }
            frequencies = (0..<half).map { index in
                let ramp = Float(min(max((Double(index) - low) / (high - low), 0), 1))
                let kept = 1 / periods[index]
                let interpolated = 1 / (factor * periods[index])
                return interpolated * ramp + kept * (1 - ramp)
            }
            magnitude = attentionFactor ?? (factor > 1 ? Float(0.1 * log(Double(factor)) + 1) : 1)
        }
    }

    /// Writes cosines and sines [headDim / 2] of one position.
    func write(position: Int, cosines: UnsafeMutablePointer<Float>, sines: UnsafeMutablePointer<Float>) {
        for (index, frequency) in frequencies.enumerated() {
            let angle = Double(Float(position) * frequency)
            cosines[index] = Float(cos(angle)) * magnitude
            sines[index] = Float(sin(angle)) * magnitude
        }
    }
}
