import SystemLibrary

/// The router's rules for one row (model.md's step 3; paper, section 2.1). All in fp32.
package enum Routing {
    /// logits [count] -> scores, in place.
    package static func score(
        _ logits: UnsafeMutablePointer<Float>, count: Int, _ scoring: ModelConfiguration.RouterScoring
    ) {
        switch scoring {
        case .sigmoid:
            for i in 0..<count { logits[i] = 1 / (1 + expf(-logits[i])) }
        case .softmax:
            var most = -Float.infinity
            for i in 0..<count { most = max(most, logits[i]) }
            var sum: Float = 0
            for i in 0..<count {
                logits[i] = expf(logits[i] - most)
                sum += logits[i]
            }
            for i in 0..<count { logits[i] /= sum }
        }
    }

    /// Chooses the `choices` experts with the largest score + bias, ties to the lowest index, largest first, and weighs each by its
    /// unbiased score. A score that is not a number is never preferred to one that is. `isTaken` [count] is scratch.
    static func choose(
        scores: UnsafePointer<Float>, bias: UnsafePointer<Float>?, count: Int, choices: Int, normalizes: Bool,
        scalingFactor: Float, chosen: UnsafeMutablePointer<Int32>, weights: UnsafeMutablePointer<Float>,
        isTaken: UnsafeMutablePointer<Bool>
    ) {
        isTaken.update(repeating: false, count: count)
        var sum: Float = 0
        for choice in 0..<choices {
            var best = -1
            var bestScore = -Float.infinity
            for expert in 0..<count where !isTaken[expert] {
                let score = scores[expert] + (bias?[expert] ?? 0)
                if best < 0 || score > bestScore || (bestScore.isNaN && !score.isNaN) {
                    best = expert
                    bestScore = score
                }
            }
            isTaken[best] = true
            chosen[choice] = Int32(best)
            weights[choice] = scores[best]
            sum += scores[best]
        }
        // The models' own code guards the division in the same way.
        let factor = normalizes ? scalingFactor / (sum + 1e-20) : scalingFactor
        for choice in 0..<choices { weights[choice] *= factor }
    }
}
