import SampleFiles
import Sigma
import SystemLibrary
import Testing

extension DraftTests {
    /// `SIGMA_DRAFT_ANSWERS` sets how many are compared at least (100).
    @Test func aHundredAnswersAreTheSame() async throws {
        let wanted = getenv("SIGMA_DRAFT_ANSWERS").flatMap { Int(String(cString: $0)) } ?? 100
        var compared = 0
        var tally = Tally()
        var round = 0
        while compared < wanted {
            compared += try await compareAnswers(round: round, &tally)
            round += 1
        }
        #expect(tally.accepted > 3 * compared && tally.rejected > 3 * compared, "\(tally)")
        if wanted > 100 { print("\(compared) answers compared; \(tally)") }
    }

    /// Answers at three temperatures, of which some are scored, penalized or kept in other types, with three sources of drafts; all in memory and under a
    /// budget, alone and in company.
    ///
    /// - Returns: how many were compared with the same answer without drafts.
    private func compareAnswers(round: Int, _ tally: inout Tally) async throws -> Int {
        var requests: [GenerationRequest] = []
        let plain = try SmallModel.engine()
        for (index, temperature) in [0, 0.6, 1.2].enumerated() {
            for seed in 1...4 {
                var options = plain.endless(28 + seed, temperature: temperature, seed: UInt64(4 * round + seed))
                options.drafts = .off
                if seed == 3 { (options.frequencyPenalty, options.presencePenalty) = (0.5, 0.3) }
                let prompt = SmallModel.tokens(
                    20 + 90 * seed + round % 70, seed: UInt64(1000 * round + 10 * index + seed))
                requests.append(plain.request(prompt, options, logProbabilityCount: seed == 2 ? 3 : nil))
            }
        }
        let kvTypes: [KVType] = requests.indices.map { [.f16, .q8_0, .f16, .f32][$0 % 4] }
        let expected = try zip(requests, kvTypes).map { try Self.answer($0, on: plain, kvType: $1) }
        #expect(plain.gauge.reading.draftedTokens == 0)

        var compared = 0
        for isResident in [true, false] {
            for share in [nil, 0.5, 0.9] {
                let drafted = zip(requests, expected).map { request, whole in
                    var request = request
                    request.options.drafts = .on
                    if let share {
                        request.draftSource = PartlyRight(
                            sequence: request.tokens + whole.tokens.map(\.id), share: share)
                    }
                    return request
                }
                func engine() throws -> Engine {
                    isResident
                        ? try SmallModel.engine()
                        : try SmallModel.engine(budget: (4 + round % 3) << 20, isResident: false)
                }
                let name =
                    "round \(round), \(isResident ? "resident" : "under a budget"), \(share.map { "\($0) right" } ?? "looked up")"
                let alone = try engine()
                for (index, request) in drafted.enumerated() {
                    let found = try Self.answer(request, on: alone, kvType: kvTypes[index])
                    #expect(found == expected[index], "alone, \(name)")
                }
                let together = try engine()
                let wholes = try await Self.answers(drafted, on: together, kvTypes: kvTypes)
                for (found, whole) in zip(wholes, expected) { #expect(found == whole, "in company, \(name)") }
                compared += 2 * drafted.count
                for engine in [alone, together] {
                    var own = Tally()
                    own.add(engine)
                    // Answers of random weights hardly repeat: whether a guess from the text holds depends on which requests
                    // share a step.
                    #expect(own.rejected > 0 && (share == nil || own.accepted > 0), "\(name): \(own)")
                    tally.accepted += own.accepted
                    tally.rejected += own.rejected
                }
            }
        }
        return compared
    }
}
