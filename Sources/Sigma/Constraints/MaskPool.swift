/// Masks that are written anew from step to step, so that a constrained step takes no memory.
///
/// Whoever computes a step may hold its mask for a while: one is written only when nobody else holds it. One thread at a time uses a pool.
package final class MaskPool: @unchecked Sendable {
    private let vocabularySize: Int
    private var masks: [TokenMask] = []

    package init(vocabularySize: Int) { self.vocabularySize = vocabularySize }

    /// - Parameter fill: writes all words; they may have any value before.
    package func mask(_ fill: (UnsafeMutableBufferPointer<UInt64>) -> Void) -> TokenMask {
        for index in masks.indices where isKnownUniquelyReferenced(&masks[index]) {
            masks[index].refill(fill)
            return masks[index]
        }
        let mask = TokenMask(vocabularySize: vocabularySize, fill)
        masks.append(mask)
        return mask
    }
}
