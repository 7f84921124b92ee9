"""How a refusal reaches the client: one gRPC status with google.rpc details, made from McastdError."""

from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from mcastd.api.ports import Context
from mcastd.model.errors import McastdError, Reason

DOMAIN = "mcastd"
"""ErrorInfo.domain of every error that this daemon makes itself."""

_RETRY = frozenset({Reason.STORE_UNAVAILABLE, Reason.RATE_LIMIT})
"""Reasons for which trying again soon is worth it: after a second, or what the metadata says."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def refuse(context: Context, error: McastdError) -> NoReturn:
    """End the RPC with the error: its code, its message, ErrorInfo with the reason, and the field where one is named."""
    problem = error.problem
    info = error_details_pb2.ErrorInfo(reason=problem.reason, domain=DOMAIN, metadata=dict(problem.metadata))
    details = [_any(info)]
    if "field" in problem.metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(field=problem.metadata["field"], description=problem.message)
        details.append(_any(error_details_pb2.BadRequest(field_violations=[violation])))
    if problem.reason in _RETRY:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(1000 * float(problem.metadata.get("retry_after", 1.0))))
        details.append(_any(retry))
    status = status_pb2.Status(code=problem.code, message=problem.message, details=details)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(_CODES[problem.code], problem.message)
    raise AssertionError("abort returns never")


def _any(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
