import Sigma
import SystemLibrary

/// A connection to this machine whose every byte the test decides. One thread at a time uses it.
package final class RawConnection: @unchecked Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package var call: String
        package var code: Int32
        package var description: String { "\(call): \(String(cString: strerror(code)))" }
    }

    private var descriptor: Int32

    /// - Parameter receiveBuffer: bytes that the system takes before they are read; nil: as usual.
    package init(port: Int, receiveBuffer: Int? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw Failure(call: "socket", code: errno) }
        if var size = receiveBuffer.map({ Int32($0) }) {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw Failure(call: "connect", code: errno) }
        var time = timeval(tv_sec: 600, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close() }

    package static func request(_ method: String, _ path: String, headers: [String: String] = [:], body: String?)
        -> [UInt8]
    {
        var text = "\(method) \(path) HTTP/1.1\r\nconnection: close\r\n"
        if headers["host"] == nil { text += "host: 127.0.0.1\r\n" }
        for (name, value) in headers { text += "\(name): \(value)\r\n" }
        if let body { text += "content-length: \(body.utf8.count)\r\n\r\n\(body)" } else { text += "\r\n" }
        return Array(text.utf8)
    }

    package func write(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Failure(call: "send", code: errno) }
            sent += count
        }
    }

    /// - Returns: nothing at the end.
    package func read(atMost count: Int = 1 << 16) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = recv(descriptor, &bytes, count, 0)
        guard received >= 0 else { throw Failure(call: "recv", code: errno) }
        return Array(bytes[..<received])
    }

    package func readToEnd() throws -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let bytes = try read()
            if bytes.isEmpty { return all }
            all += bytes
        }
    }

    package func close() {
        if descriptor >= 0 { _ = SystemLibrary.close(descriptor) }
        descriptor = -1
    }

    /// Closes so that the other side gets an error.
    package func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    /// Sends no more.
    package func closeSending() { shutdown(descriptor, Int32(SHUT_WR)) }
}

/// A reply, with its chunks put together.
package struct HTTPReply: Sendable {
    package struct Malformed: Error {}

    package var status: Int
    package var headers: [String: String] = [:]
    package var text: String

    package init(_ bytes: [UInt8]) throws {
        let end: [UInt8] = [13, 10, 13, 10]
        guard let headEnd = bytes.indices.dropLast(3).first(where: { Array(bytes[$0..<$0 + 4]) == end }) else {
            throw Malformed()
        }
        let lines = String(decoding: bytes[..<headEnd], as: UTF8.self).split(separator: "\r\n")
        guard let code = lines.first?.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw Malformed()
        }
        status = code
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            headers[parts[0].lowercased()] = parts.count > 1 ? String(parts[1].drop { $0 == " " }) : ""
        }
        var body = bytes[(headEnd + 4)...]
        if headers["transfer-encoding"] == "chunked" { body = try Self.joined(body) }
        text = String(decoding: body, as: UTF8.self)
    }

    private static func joined(_ bytes: ArraySlice<UInt8>) throws -> ArraySlice<UInt8> {
        var rest = bytes
        var all: ArraySlice<UInt8> = []
        while let line = rest.firstIndex(of: 13) {
            guard let size = Int(String(decoding: rest[rest.startIndex..<line], as: UTF8.self), radix: 16) else {
                throw Malformed()
            }
            if size == 0 { return all }
            guard rest.endIndex >= line + 2 + size else { break }
            all += rest[line + 2..<line + 2 + size]
            rest = rest[(line + 4 + size)...]
        }
        throw Malformed()
    }

    package func json() throws -> JSONValue { try JSONValue.parse(text) }

    /// The data of a stream's events.
    package var events: [String] {
        text.components(separatedBy: "\n\n").filter { $0.hasPrefix("data: ") }.map { String($0.dropFirst(6)) }
    }

    package var error: JSONValue? { (try? json())?["error"] }
}

extension String {
    fileprivate func components(separatedBy separator: String) -> [String] {
        split(separator: separator, omittingEmptySubsequences: true).map(String.init)
    }
}
