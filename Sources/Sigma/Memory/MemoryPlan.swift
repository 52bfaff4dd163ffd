/// Which memory goes where: made once, when a model is loaded.
///
/// Process, dense weights and the file's header are fixed. Keys and values, activations and expert slots share the rest: what the first two
/// take, the slots give (`MemoryBudget`).
package struct MemoryPlan: Sendable {
    /// The byte budget; nil: none.
    package var budget: Int?
    /// Whether experts stay in the mapped file, all of them.
    package var isResident: Bool
    /// The process itself: code, tokenizer, threads, and the page cache of the model file's header.
    package var processBytes: Int
    package var denseBytes: Int
    package var expertBytes: Int
    package var expertCount: Int
    package var slotBytes: Int
    /// Records that one token uses: a sequence ends when there would be fewer slots.
    package var recordsPerToken: Int
    /// A limit on the slots that `--expert-cache` sets.
    package var slotLimit: Int
    /// Activations of a step with one row at the begin of a sequence, what each further row takes, and what each further block of positions adds
    /// to those of one row.
    package var activationBytes: Int
    package var activationRowBytes: Int
    package var activationBlockBytes = 0
    /// One block of keys and values, of 256 positions, in 16 bits.
    package var kvBlockBytes: Int
    /// Positions that the model states.
    package var contextLength = 0
    /// Where the budget comes from if nobody has set one.
    package var offer: AvailableMemory.Offer?

    package init(
        budget: Int?, isResident: Bool, processBytes: Int, denseBytes: Int, expertBytes: Int, expertCount: Int,
        slotBytes: Int, recordsPerToken: Int, slotLimit: Int, activationBytes: Int, activationRowBytes: Int,
        kvBlockBytes: Int
    ) {
        self.budget = budget
        self.isResident = isResident
        self.processBytes = processBytes
        self.denseBytes = denseBytes
        self.expertBytes = expertBytes
        self.expertCount = expertCount
        self.slotBytes = slotBytes
        self.recordsPerToken = recordsPerToken
        self.slotLimit = slotLimit
        self.activationBytes = activationBytes
        self.activationRowBytes = activationRowBytes
        self.kvBlockBytes = kvBlockBytes
    }

    /// What keys and values, activations and slots share; nil without a budget.
    package var sharedBytes: Int? { budget.map { $0 - processBytes - denseBytes - (isResident ? expertBytes : 0) } }

    /// Slots beside keys, values and activations of these sizes.
    package func slots(kv: Int, activations: Int) -> Int {
        guard let sharedBytes, slotBytes > 0 else { return slotLimit }
        return min(slotLimit, max(0, sharedBytes - kv - activations) / slotBytes)
    }

    /// Slots that a step must leave: those of one token.
    package var leastSlots: Int { isResident ? 0 : recordsPerToken }
    /// Slots that a step of many rows should leave, so that a layer's experts are read while others are computed.
    package var sweepSlots: Int { isResident ? 0 : min(slotLimit, max(recordsPerToken, 64)) }

    /// Slots at the begin of a short sequence.
    package var slotsAtStart: Int { slots(kv: kvBlockBytes, activations: activationBytes) }

    /// Share of the experts that the slots at the start hold: the hit rate where routing is balanced.
    package var expectedHitRate: Double {
        isResident || expertCount == 0 ? 1 : min(1, Double(slotsAtStart) / Double(expertCount))
    }

    /// Bytes that a token's experts are expected to need from the disk.
    package var expectedMissBytes: Double {
        expertCount == 0
            ? 0 : (1 - expectedHitRate) * Double(recordsPerToken) * Double(expertBytes) / Double(expertCount)
    }

    /// The smallest budget that works: one block of keys and values, and the slots of one token, or all experts where they are to stay.
    package var leastBudget: Int {
        processBytes + denseBytes + activationBytes + kvBlockBytes
            + (isResident ? expertBytes : recordsPerToken * slotBytes)
    }

    /// What the process itself takes differs so much from run to run at most: a budget that was advised must work in the next one.
    private static let fluctuation = 1 << 20

    /// Positions that a sequence alone can have before fewer slots than a token's remain; nil: no limit but the model's.
    ///
    /// - Parameter blockBytes: of 256 positions.
    package func positionLimit(blockBytes: Int) -> Int? {
        guard let sharedBytes, blockBytes > 0 else { return nil }
        let rest = sharedBytes - activationBytes - leastSlots * slotBytes
        // The activations of one row have those of the first block.
        return max(0, rest + activationBlockBytes) / (blockBytes + activationBlockBytes) * KVBlockLayout.length
    }

    /// - Throws: `SigmaError(.unavailable)` with the least size that works.
    package func check(path: String) throws {
        func text(_ bytes: Int) -> String { "\((bytes + (1 << 20) - 1) >> 20) MiB" }
        if let budget, budget < leastBudget {
            let least = leastBudget + Self.fluctuation
            throw SigmaError(
                .unavailable,
                "the budget of \(text(budget))\(offer.map { " (\($0.reason))" } ?? "") is too small: the model needs \(text(least)) at least (process \(text(processBytes)), dense weights \(text(denseBytes)), activations \(text(activationBytes)), a block of keys and values \(text(kvBlockBytes)), experts \(text(isResident ? expertBytes : recordsPerToken * slotBytes)))",
                path: path,
                remedy: (offer ?? AvailableMemory.offer)?.remedy(least: least)
                    ?? .raise(.memory, least: text(least)))
        }
        if !isResident, slotLimit < recordsPerToken {
            throw SigmaError(
                .unavailable,
                "an expert cache of \(slotLimit) experts is too small: one token uses \(recordsPerToken), and a smaller cache would hit nothing",
                path: path, remedy: .raise(.expertCache, least: text(recordsPerToken * slotBytes)))
        }
    }
}
