import Foundation
import SigmaTerminal
import SystemLibrary
import Testing

/// What a person made in a chat is neither lost nor shown to others.
@Suite struct ChatFileTests {
    private static let arguments = ChatTests.greedy + ["--no-think"]
    private func has(_ chat: ChatProcess, _ text: String) -> Bool { chat.screen.text.contains(text) }

    private func ask(_ chat: ChatProcess, _ question: String = "What is 12 + 35?") throws {
        let prompts = chat.screen.rows.filter { $0.hasPrefix(">") }.count
        chat.enter(question)
        try chat.waitForPrompt(after: prompts)
    }

    private func enter(_ chat: ChatProcess, _ command: String, _ answer: String) throws {
        chat.enter(command)
        try chat.wait("the answer to \(command)") { $0.text.contains(answer) && $0.cursorRow == ">" }
    }

    @Test func quotedNames() throws {
        let folder = Scratch.path("saved")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let chat = try ChatProcess(Self.arguments, columns: 200)
        try chat.waitForPrompt()
        try enter(chat, "/save \"\(folder)/my chat.x\"", "my chat.x")
        try enter(chat, "/save '\(folder)/single'", "single")
        try enter(chat, "/save \(folder)/plain name", "plain name")
        try enter(chat, "/save \(folder)/half\"", "half")
        try enter(chat, "/load \"\(folder)/my chat.x\"", "The last")
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
                == ["half\"", "my chat.x", "plain name", "single"])
    }

    /// What was loaded goes on in its own file, and what was there before is in its.
    @Test func loadingAnotherConversation() throws {
        let (mine, other) = (Scratch.path("mine.chat"), Scratch.path("other.chat"))
        for (path, question) in [(mine, "What is 3 + 5?"), (other, "What is 12 + 35?")] {
            let chat = try ChatProcess(Self.arguments + ["--session", path], columns: 200)
            try chat.waitForPrompt()
            try ask(chat, question)
            chat.type("\u{4}")
            #expect(try chat.end() == 0)
        }
        let chat = try ChatProcess(Self.arguments + ["--session", mine], columns: 200)
        try chat.waitForPrompt()
        try ask(chat, "What is 4 + 5?")
        try enter(chat, "/load \(other)", "12 + 35")
        try ask(chat, "What is 6 + 5?")
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
        #expect(has(chat, "The conversation is in \(other)"))
        for (path, questions) in [(mine, ["3 + 5", "4 + 5"]), (other, ["12 + 35", "6 + 5"])] {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            for question in questions {
                #expect(bytes.range(of: Data("What is \(question)?".utf8)) != nil, "\(question)")
            }
            #expect(bytes.range(of: Data("What is 7 + 5?".utf8)) == nil)
        }
    }

    /// The session's own file under another spelling.
    @Test func anotherSpelling() throws {
        let folder = Scratch.path("spelled")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let chat = try ChatProcess(Self.arguments + ["--session", folder + "/a.chat"], columns: 200)
        try chat.waitForPrompt()
        try ask(chat)
        try enter(chat, "/save", "1 question")
        try enter(chat, "/save \(folder)/./a.chat", "1 question")
        try ask(chat, "What is 3 + 5?")
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
        #expect(!has(chat, "has changed"))
    }

    /// Presses of Ctrl-C that come together are one: they stop the answer, and the chat goes on.
    @Test func controlCHeldDown() throws {
        let path = Scratch.path("left.chat")
        let endless = [
            "--model", TestModels.endless, "--temperature", "0", "--max-tokens", "1000000", "--context", "1000000",
        ]
        let chat = try ChatProcess(endless + ["--no-think", "--session", path], columns: 200)
        try chat.waitForPrompt()
        chat.enter("one")
        try chat.wait("an answer") { $0.text.count > 200 }
        chat.type("\u{3}\u{3}\u{3}\u{3}")
        try chat.wait("the stop") { $0.text.contains("Stopped.") && $0.cursorRow == ">" }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)).range(of: Data("one".utf8)) != nil)
    }

    /// Ctrl-C that comes together with the question stops its answer.
    @Test func controlCBehindTheQuestion() throws {
        let chat = try ChatProcess(
            ["--model", TestModels.endless, "--temperature", "0", "--max-tokens", "1000000", "--context", "1000000"])
        try chat.waitForPrompt()
        chat.type("one\r\u{3}")
        try chat.wait("the stop") { $0.text.contains("Stopped") && $0.cursorRow == ">" }
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    @Test func aTerminalWithoutACursorIsNamed() throws {
        for kind in ["dumb", ""] {
            let chat = try ChatProcess(Self.arguments, columns: 200, environment: ["TERM": kind])
            #expect(try chat.end() == 64)
            #expect(has(chat, "TERM is '\(kind)'"), "\(chat.screen.text)")
        }
        let piped = try Subprocess.run("sigma-run", Self.arguments)
        #expect(piped.code == 64 && piped.errors.contains("On a terminal") && !piped.errors.contains("TERM"))
    }

    /// Nothing can be asked before.
    @Test func thePlaceOfTheSessionIsTriedFirst() throws {
        let folder = Scratch.path("folder")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let pipe = Scratch.path("pipe")
        try #require(mkfifo(pipe, 0o600) == 0)
        let plain = try Scratch.file("plain", "no folder")
        for (path, code) in [
            ("/no/such/folder/s.chat", 66), (folder, 64), (pipe, 64), ("/dev/null", 64), (plain + "/s.chat", 66),
        ] {
            let chat = try ChatProcess(Self.arguments + ["--session", path], columns: 200)
            #expect(try Int(chat.end()) == code, "\(path): \(chat.screen.text)")
            #expect(!has(chat, ">"), "\(path)")
        }
        // Nothing is left of the trial.
        let good = try ChatProcess(Self.arguments + ["--session", folder + "/s.chat"])
        try good.waitForPrompt()
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
        good.type("\u{4}")
        #expect(try good.end() == 0)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["s.chat"])
    }

    @Test func twoChatsOnOneFile() throws {
        let path = Scratch.path("shared.chat")
        let first = try ChatProcess(Self.arguments + ["--session", path], columns: 200)
        try first.waitForPrompt()
        try ask(first)
        let second = try ChatProcess(Self.arguments + ["--session", path], columns: 200)
        try second.waitForPrompt()
        try ask(second, "What is 3 + 5?")
        second.type("\u{4}")
        #expect(try second.end() == 0)
        let written = try Data(contentsOf: URL(fileURLWithPath: path))

        // The first one notices, stays open, and takes another name.
        first.type("\u{4}")
        try first.wait("the refusal") { $0.text.contains("has changed") && $0.cursorRow == ">" }
        #expect(has(first, "The chat is still open"))
        try enter(first, "/save", "has changed")
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == written)
        try enter(first, "/save \(path).mine", "1 question")
        first.type("\u{4}")
        #expect(try first.end() == 0)
        #expect(has(first, "The conversation is in \(path).mine"))
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == written)
        let resumed = try ChatProcess(Self.arguments + ["--session", path + ".mine"], columns: 200)
        try resumed.waitForPrompt()
        #expect(has(resumed, "12 + 35"))
        kill(resumed.pid, SIGTERM)
        #expect(try resumed.end() == 0)
    }

    /// Nobody can be asked for another name: both are kept.
    @Test func theTerminalGoesWhileAnotherChatHasWritten() throws {
        let path = Scratch.path("lost.chat")
        let chat = try ChatProcess(Self.arguments + ["--session", path])
        try chat.waitForPrompt()
        try ask(chat)
        try Data("another's".utf8).write(to: URL(fileURLWithPath: path))
        kill(chat.pid, SIGTERM)
        #expect(try chat.end() == 0)
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "another's")
        #expect(try Data(contentsOf: URL(fileURLWithPath: path + "-2")).count > 1000)
    }

    @Test func aFailedSaveLeavesTheChatOpen() throws {
        let folder = Scratch.path("disk")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let chat = try ChatProcess(Self.arguments + ["--session", folder + "/s.chat"], columns: 200)
        try chat.waitForPrompt()
        try ask(chat)
        try FileManager.default.removeItem(atPath: folder)
        chat.enter("/quit")
        try chat.wait("the error") { $0.text.contains("The chat is still open") && $0.cursorRow == ">" }
        let elsewhere = Scratch.path("elsewhere.chat")
        try enter(chat, "/save \(elsewhere)", "1 question")
        chat.enter("/quit")
        #expect(try chat.end() == 0)
        #expect(FileManager.default.fileExists(atPath: elsewhere))

        // Who wants to leave without it can.
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let other = try ChatProcess(Self.arguments + ["--session", folder + "/s.chat"], columns: 200)
        try other.waitForPrompt()
        try FileManager.default.removeItem(atPath: folder)
        other.type("\u{4}")
        try other.wait("the error") { $0.text.contains("The chat is still open") && $0.cursorRow == ">" }
        other.type("\u{4}")
        #expect(try [66, 74].contains(other.end()))
    }

    @Test func theSessionsTypeOfKeysAndValuesIsTold() throws {
        let path = Scratch.path("kv.chat")
        let first = try ChatProcess(Self.arguments + ["--session", path, "--kv-type", "q8_0"])
        try first.waitForPrompt()
        try ask(first)
        first.type("\u{4}")
        #expect(try first.end() == 0)
        let note = "The key-value cache stays q8_0"
        let second = try ChatProcess(Self.arguments + ["--session", path, "--kv-type", "f16"], columns: 200)
        try second.waitForPrompt()
        #expect(has(second, note) && has(second, "--kv-type f16"))
        second.type("\u{4}")
        #expect(try second.end() == 0)
        let same = try ChatProcess(Self.arguments + ["--session", path, "--kv-type", "q8_0"], columns: 200)
        try same.waitForPrompt()
        #expect(!has(same, note))
        same.type("\u{4}")
        #expect(try same.end() == 0)
        let loaded = try ChatProcess(Self.arguments + ["--kv-type", "f32"], columns: 200)
        try loaded.waitForPrompt()
        #expect(!has(loaded, note))
        try enter(loaded, "/load \(path)", note)
        loaded.type("\u{4}")
        #expect(try loaded.end() == 0)
    }

    @Test func aModelThatStopsWhileItThinks() throws {
        let chat = try ChatProcess(
            ["--model", TestModels.stoppingInThought, "--threads", "1", "--temperature", "0"], columns: 200)
        try chat.waitForPrompt()
        try ask(chat)
        #expect(has(chat, "There is no answer: the model ended its turn while it was thinking."), "\(chat.screen.text)")
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    // MARK: - History

    /// Pipes, folders and devices: the chat goes on without a history.
    @Test func historiesThatAreNoFiles() throws {
        let state = Scratch.path("state")
        let place = state + "/sigma/history"
        try FileManager.default.createDirectory(atPath: state + "/sigma", withIntermediateDirectories: true)
        try #require(mkfifo(place, 0o600) == 0)
        for kind in ["pipe", "folder", "link to a device", "dangling link"] {
            if kind != "pipe" { try FileManager.default.removeItem(atPath: place) }
            switch kind {
            case "folder": try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
            case "link to a device":
                try FileManager.default.createSymbolicLink(atPath: place, withDestinationPath: "/dev/zero")
            case "dangling link":
                try FileManager.default.createSymbolicLink(atPath: place, withDestinationPath: "/no/such/file")
            default: break
            }
            let chat = try ChatProcess(Self.arguments, stateFolder: state)
            try chat.waitForPrompt()
            try ask(chat)
            chat.type("\u{1b}[A")
            try chat.wait("the message, from memory: \(kind)") { $0.cursorRow.hasPrefix("> What is 12") }
            chat.type("\u{15}\u{4}")
            #expect(try chat.end() == 0)
        }
    }

    @Test func historiesBecomePrivate() throws {
        func mode(_ path: String) throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        }
        let path = try Scratch.file("history", "one\n")
        chmod(path, 0o644)
        var history = InputHistory(path: path)
        history.append("two")
        #expect(try mode(path) == 0o600)
        // Shortened through a link: the link stays, and what it leads to is private.
        let long = try Scratch.file("long", (0..<50).map { "entry \($0)\n" }.joined())
        chmod(long, 0o666)
        let link = Scratch.path("link")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: long)
        #expect(InputHistory(path: link, limit: 10).entries.count == 10)
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == long)
        #expect(try mode(long) == 0o600)
        #expect(try String(contentsOfFile: long, encoding: .utf8).split(separator: "\n").count == 10)
    }
}
