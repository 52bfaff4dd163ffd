import Sigma
import Testing

/// Guesses from the text so far, against a finder that looks everywhere.
@Suite struct SuffixAutomatonTests {
    /// The longest end of the text that also ends earlier, and the place behind its newest earlier occurrence.
    private static func match(_ text: [Int32]) -> SuffixAutomaton.Match? {
        var best: SuffixAutomaton.Match?
        for end in 1..<max(1, text.count) {
            var length = 0
            while length < end, text[end - 1 - length] == text[text.count - 1 - length] { length += 1 }
            if length > 0, length >= best?.length ?? 1 { best = SuffixAutomaton.Match(length: length, next: end) }
        }
        return best
    }

    /// Texts that repeat in different ways.
    private static func texts() -> [[Int32]] {
        var random = SplitMix64(state: 3)
        var texts: [[Int32]] = [[], [7], [7, 7], (0..<150).map { _ in 5 }, (0..<150).map { Int32($0 % 7) }]
        for alphabet in [2, 3, 10, 200] {
            for _ in 0..<6 { texts.append((0..<200).map { _ in Int32(random.next() % UInt64(alphabet)) }) }
        }
        // Pieces of itself, as answers quote their prompts.
        for _ in 0..<6 {
            var text: [Int32] = (0..<40).map { _ in Int32(random.next() % 1000) }
            while text.count < 250 {
                let first = Int(random.next() % UInt64(text.count - 20))
                text += text[first..<first + 3 + Int(random.next() % 17)]
                if random.next() % 3 == 0 { text.append(Int32(random.next() % 1000)) }
            }
            texts.append(text)
        }
        return texts
    }

    @Test func findsTheLongestEndThatWasThereBefore() {
        var found = 0
        for text in Self.texts() {
            var automaton = SuffixAutomaton()
            #expect(automaton.match == nil)
            for count in 1..<(text.count + 1) {
                automaton.append(text[count - 1])
                let expected = Self.match(Array(text[..<count]))
                // States far above the newest are not brought up to date; such deep ones exist only in texts of one token.
                if let match = automaton.match, let expected, match.length == expected.length {
                    #expect(
                        match.next == expected.next
                            || text[(match.next - match.length)..<match.next] == text[(count - match.length)..<count])
                } else {
                    #expect(automaton.match == expected, "\(text[..<count])")
                }
                if automaton.match == expected, expected != nil { found += 1 }
            }
            #expect(automaton.text == text)
            #expect(automaton.size.states <= max(2, 2 * text.count))
            #expect(automaton.size.edges <= max(1, 3 * text.count))
        }
        #expect(found > 4000)
    }

    @Test func theNewestOccurrenceIsFoundWhereStatesAreFew() {
        var random = SplitMix64(state: 9)
        for _ in 0..<20 {
            var automaton = SuffixAutomaton()
            var text: [Int32] = []
            for _ in 0..<150 {
                text.append(Int32(random.next() % 4))
                automaton.append(text[text.count - 1])
                #expect(automaton.match == Self.match(text))
            }
        }
    }

    @Test func memoryIsBounded() {
        var lookup = DraftLookup(tokenLimit: 1000)
        var random = SplitMix64(state: 5)
        var most = 0
        for _ in 0..<5000 {
            lookup.append(Int32(random.next() % 100_000), isAnswer: true)
            most = max(most, lookup.byteCount)
        }
        #expect(most < 1000 * 150)
        // What is old enough is gone; what is new is found.
        let phrase: [Int32] = [1, 2, 3, 4, 5, 6]
        for token in phrase + phrase.prefix(3) { lookup.append(200_000 + token, isAnswer: true) }
        var draft = Draft()
        lookup.guess(3, into: &draft)
        #expect(draft.tokens == [200_004, 200_005, 200_006])
    }

    @Test func guessesGoOnBehindTheTextsEnd() {
        var lookup = DraftLookup()
        for token: Int32 in [9, 1, 2, 3, 1, 2, 3] { lookup.append(token, isAnswer: true) }
        var draft = Draft()
        lookup.guess(7, into: &draft)
        #expect(draft.tokens == [1, 2, 3, 1, 2, 3, 1])
        #expect(draft.kinds == [3, 4, 5, 6, 7, 8, 9].map { DraftKind.match($0) })
    }

    @Test func aPredictionIsFollowedAndFoundAgain() {
        var lookup = DraftLookup(prediction: [10, 11, 12, 13, 14, 15, 16, 17])
        var draft = Draft()
        func predicted() -> [Int32] {
            lookup.predict(3, into: &draft)
            return draft.tokens
        }
        for token: Int32 in [1, 2, 3] { lookup.append(token, isAnswer: false) }
        #expect(predicted() == [10, 11, 12])
        // A line end before it.
        lookup.append(99, isAnswer: true)
        #expect(predicted() == [10, 11, 12])
        for token: Int32 in [10, 11] { lookup.append(token, isAnswer: true) }
        #expect(predicted() == [12, 13, 14])
        // The answer goes elsewhere, and comes back.
        for token: Int32 in [50, 51] { lookup.append(token, isAnswer: true) }
        #expect(predicted() == [])
        for token: Int32 in [14, 15] { lookup.append(token, isAnswer: true) }
        lookup.guess(5, into: &draft)
        #expect(draft.tokens == [16, 17], "the separator ends the guesses")
    }
}
