import SigmaConversion
import Synchronization
import Testing

/// Work in order: results in their slots, errors of the lowest index, nothing left running.
@Suite struct OrderedPipelineTests {
    private struct Failure: Error, Equatable { var index: Int }

    @Test(arguments: [1, 2, 7], [1, 2, 5]) func everyResultIsUsedInOrder(_ slots: Int, _ threads: Int) throws {
        let contents = Mutex([Int](repeating: -1, count: slots))
        var consumed: [Int] = []
        try OrderedPipeline.run(count: 200, slots: slots, threads: threads) { index, slot in
            contents.withLock { $0[slot] = index }
        } consume: { index, slot in
            #expect(slot == index % slots)
            consumed.append(contents.withLock { $0[slot] })
        }
        #expect(consumed == Array(0..<200))
    }

    @Test(arguments: [1, 2, 5]) func theLowestFailureIsThrown(_ threads: Int) {
        var consumed: [Int] = []
        #expect(throws: Failure(index: 60)) {
            try OrderedPipeline.run(count: 200, slots: 6, threads: threads) { index, _ in
                if index == 60 || index > 62 { throw Failure(index: index) }
            } consume: { index, _ in
                consumed.append(index)
            }
        }
        #expect(consumed == Array(0..<60))
    }

    @Test func aFailureToConsumeEndsTheWork() {
        let made = Atomic<Int>(0)
        #expect(throws: Failure(index: 10)) {
            try OrderedPipeline.run(count: 1000, slots: 4, threads: 3) { _, _ in
                made.add(1, ordering: .relaxed)
            } consume: { index, _ in
                if index == 10 { throw Failure(index: index) }
            }
        }
        #expect(made.load(ordering: .relaxed) <= 14)
    }

    @Test func nothingToDo() throws {
        try OrderedPipeline.run(count: 0, slots: 1, threads: 3) { _, _ in
        } consume: { _, _ in
            Issue.record("called")
        }
    }
}
