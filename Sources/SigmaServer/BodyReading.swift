import Hummingbird
import NIOCore
import NIOPosix
import Sigma
import SigmaRequests

extension Request {
    /// Collects the body, and reads it on a thread that may take its time: neither the connections nor the engine wait for it.
    /// - Throws: `Refusal` for a body that is too large; what `read` throws.
    func read<Value: Sendable>(_ read: @escaping @Sendable (UnsafeRawBufferPointer) throws -> Value) async throws
        -> Value
    {
        let body: ByteBuffer
        do {
            body = try await self.body.collect(upTo: RequestLimits.bodyBytes)
        } catch is NIOTooManyBytesError {
            throw Refusal(
                status: 413, "the body is larger than \(RequestLimits.bodyBytes >> 20) MiB", code: "body_too_large")
        }
        return try await offLoop { try body.withUnsafeReadableBytes { try read($0) } }
    }
}

/// Runs work that takes processor time on a thread of a pool that is there for it.
func offLoop<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await NIOThreadPool.singleton.runIfActive(work)
}
