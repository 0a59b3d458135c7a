-- Sends every token of a file once. After the last one it sends none, which is
-- refused, and seen in what wrk counts.
local tokens

function init(args)
	tokens = io.lines(args[1])
end

function request()
	local token = tokens and tokens()
	if not token then
		tokens = nil
	end
	wrk.headers["Authorization"] = token and "Bearer " .. token
	return wrk.format("GET")
end
