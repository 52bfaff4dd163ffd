import Sigma
import Testing

@Suite struct TextScannerTests {
    /// Feeds a text in pieces of any size and collects both parts.
    static func split(_ text: String, from start: ThinkingSplitter.State, piece: Int) -> (
        thinking: String, answer: String
    ) {
        var splitter = ThinkingSplitter(start)
        var (thinking, answer) = ("", "")
        var rest = Substring(text)
        while !rest.isEmpty {
            let (t, a) = splitter.append(String(rest.prefix(piece)))
            rest = rest.dropFirst(piece)
            #expect(answer.isEmpty || t.isEmpty)
            thinking += t
            answer += a
        }
        let isThinking = splitter.state == .thinking
        let held = splitter.finish()
        if isThinking { thinking += held } else { answer += held }
        return (thinking, answer)
    }

    @Test(arguments: [1, 2, 3, 5, 100]) func tagsAreFoundInAnyPieces(piece: Int) {
        let cases: [(String, ThinkingSplitter.State, String, String)] = [
            ("3 + 4</think>7.", .thinking, "3 + 4", "7."),
            ("a < b</thin></think>\n\nyes</think>", .thinking, "a < b</thin>", "\n\nyes</think>"),
            ("never ends </thi", .thinking, "never ends </thi", ""),
            ("<</think>é", .thinking, "<", "é"),
            ("</think>", .thinking, "", ""),
            (" \n<think>hm</think>ok", .undetermined, "hm", "ok"),
            ("<thinner>", .undetermined, "", "<thinner>"),
            ("  plain", .undetermined, "", "  plain"),
            ("<th", .undetermined, "", "<th"),
            ("<think>a</think>", .answer, "", "<think>a</think>"),
        ]
        for (text, start, thinking, answer) in cases {
            let found = Self.split(text, from: start, piece: piece)
            #expect(found.thinking == thinking && found.answer == answer, "\(text)")
        }
    }

    @Test func theStateTellsWhetherThereWasThinking() {
        for (text, thought) in [
            ("<think>a</think>b", true), ("<think></think>", true), ("plain", false), ("<thin", false),
        ] {
            var splitter = ThinkingSplitter(.undetermined)
            _ = splitter.append(text)
            #expect(splitter.hasThought == thought, "\(text)")
        }
    }

    @Test(arguments: [1, 2, 3, 100]) func stopStringsEndTheText(piece: Int) {
        func run(_ text: String, _ stops: [String]) -> (String, Bool) {
            var matcher = StopMatcher(stops)
            var rest = Substring(text)
            var result = ""
            while !rest.isEmpty {
                let (certain, stopped) = matcher.append(String(rest.prefix(piece)))
                result += certain
                if stopped { return (result, true) }
                rest = rest.dropFirst(piece)
            }
            return (result + matcher.finish(), false)
        }
        #expect(run("one two three", ["two"]) == ("one ", true))
        #expect(run("one two three", ["three", "two t"]) == ("one ", true))
        #expect(run("aab aaab", ["aaa"]) == ("aab ", true))
        #expect(run("ends with tw", ["two"]) == ("ends with tw", false))
        #expect(run("été", ["té"]) == ("é", true))
        #expect(run("nothing", []) == ("nothing", false))
        #expect(run("nothing", [""]) == ("nothing", false))
    }

    /// Which of the stop strings it was: the one that begins first.
    @Test(arguments: [1, 100]) func theStopStringIsKnown(piece: Int) {
        func match(_ text: String, _ stops: [String]) -> String? {
            var matcher = StopMatcher(stops)
            var rest = Substring(text)
            while !rest.isEmpty, !matcher.append(String(rest.prefix(piece))).isStopped { rest = rest.dropFirst(piece) }
            return matcher.match
        }
        #expect(match("one two three", ["three", "two t"]) == "two t")
        #expect(match("one two three", ["four", "three"]) == "three")
        #expect(match("one two", ["three", "two t"]) == nil)
    }

    @Test func nothingIsHeldBackWithoutReason() {
        var matcher = StopMatcher(["</s>"])
        #expect(matcher.append("a<b").text == "a<b")
        #expect(matcher.append("a<").text == "a")
        #expect(matcher.append("b").text == "<b")
        var splitter = ThinkingSplitter(.thinking)
        #expect(splitter.append("a<").thinking == "a")
        #expect(splitter.append("/t").thinking == "")
        #expect(splitter.append("able").thinking == "</table")
    }
}
