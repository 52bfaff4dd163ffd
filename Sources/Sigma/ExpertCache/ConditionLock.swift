#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A lock with two conditions: there is work for the readers, and something has arrived for the thread that waits.
final class ConditionLock: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t> = .allocate(capacity: 1)
    private let work: UnsafeMutablePointer<pthread_cond_t> = .allocate(capacity: 1)
    private let arrival: UnsafeMutablePointer<pthread_cond_t> = .allocate(capacity: 1)

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(work, nil)
        pthread_cond_init(arrival, nil)
    }

    deinit {
        pthread_cond_destroy(work)
        pthread_cond_destroy(arrival)
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
        work.deallocate()
        arrival.deallocate()
    }

    func lock() { pthread_mutex_lock(mutex) }
    func unlock() { pthread_mutex_unlock(mutex) }
    func with<Result>(_ body: () throws -> Result) rethrows -> Result {
        lock()
        defer { unlock() }
        return try body()
    }

    func waitForWork() { pthread_cond_wait(work, mutex) }
    func waitForArrival() { pthread_cond_wait(arrival, mutex) }
    func wakeWorkers() { pthread_cond_broadcast(work) }
    func announceArrival() { pthread_cond_broadcast(arrival) }
}

/// First in, first out; keeps its memory. Entries that became void are the caller's to skip.
struct RecordQueue {
    private var items: [Int32] = []
    private var head = 0

    var count: Int { items.count - head }
    var first: Int? { head < items.count ? Int(items[head]) : nil }

    mutating func append(_ record: Int) {
        if head > 1024, head > items.count / 2 {
            items.removeFirst(head)
            head = 0
        }
        items.append(Int32(record))
    }
    mutating func removeFirst() {
        head += 1
        if head == items.count { removeAll() }
    }
    mutating func removeAll() {
        items.removeAll(keepingCapacity: true)
        head = 0
    }
}
